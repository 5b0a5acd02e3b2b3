"""A site's reply out of its objects, read without trusting who sent them.

Flower's own reading is not used: it believes ids, joins chunks as often as an index list says, and raises what its
parsers raise. Whatever happens while a reply is read is about that reply, and never about the run of the others.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.recorddict_pb2 import MetricRecord

from federation import tree
from federation.hub.steering import Metrics, Reply
from mediator.errors import Malformed

log = logging.getLogger("cloister.hub")

MODEL, METRICS = "model", "metrics"
# what the SuperLink itself answers for a node that went away or never finished its upload
_AWAY = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE})


def read_reply(site: str, message: str, contents: Mapping[str, bytes], max_model_bytes: int) -> Reply:
    """The reply whose Message object has the id `message`, out of its objects' bytes by id.

    Never raises: what is not a reply, foreseen or not, is a malformed one.
    """
    try:
        return take_apart(site, message, contents, max_model_bytes)
    except Malformed as error:
        log.warning("a reply of %s is malformed: %s", site, error.message)
    except Exception:
        log.exception("a reply of %s met an error nobody foresaw", site)
    return Reply(site, malformed=True)


def take_apart(site: str, message: str, contents: Mapping[str, bytes], max_model_bytes: int) -> Reply:
    """The reply, or `Malformed`; `read_reply` is for whoever goes on with others.

    1. Every object hashes to its id, has a place in a reply, and all together are not larger than the model sent.
    2. An error is a code and a word and holds no objects.
    3. Anything else holds the record `metrics`, perhaps `model`, and nothing more.
    4. Each tensor is the canonical `.npy` of its metadata, each metric one number.
    """

    def given(keys: Sequence[str]) -> list[bytes]:
        if any(key not in contents for key in keys):
            raise Malformed("a reply that names objects it does not bring")
        return [contents[key] for key in keys]

    nodes = tree.collect(message, given, max_model_bytes, tree.REPLY)  # (1)
    children = nodes[message].children
    try:
        proto = ProtoMessage.FromString(nodes[message].body)
    except Exception as error:
        raise Malformed("a message that is not a Flower message") from error
    if proto.HasField("error"):  # (2)
        if children:
            raise Malformed("an error that brings objects")
        return Reply(site, refusal=proto.error.reason, away=proto.error.code in _AWAY)
    if len(children) != 1:
        raise Malformed("a reply of more or less than one record of records")
    root = children[0]
    records = tree.references(nodes[root])
    kinds = {name: nodes[key].type for name, key in records.items()}
    if kinds not in ({METRICS: "MetricRecord"}, {METRICS: "MetricRecord", MODEL: "ArrayRecord"}):  # (3)
        raise Malformed("a reply of other records than a model and metrics")
    metrics = _metrics(nodes[records[METRICS]])  # (4)
    model = None
    if MODEL in records:
        model = tree.tensors(nodes[records[MODEL]], nodes, max_model_bytes)  # (4)
    return Reply(site, root=root, tensors=model, metrics=metrics)


def _metrics(node: tree.TreeNode) -> Metrics:
    try:
        items = MetricRecord.FromString(node.body).items
    except Exception as error:
        raise Malformed("a record that is not Flower's metrics") from error
    # not by Flower's own reader, which takes a value of no type for one
    kinds = {item.value.WhichOneof("value") for item in items}
    found = {item.key: getattr(item.value, item.value.WhichOneof("value") or "double") for item in items}
    if node.children or not kinds <= {"double", "sint64", "uint64"} or len(found) != len(items):
        raise Malformed("a record that is not one number for each metric")
    return found
