"""The link's Flower adapter: the Fleet API over mutual TLS. It fetches no app bundle and runs nothing a hub sends.

The only module of the link's process that knows `flwr`. The classes it uses are undocumented internals of 1.42.0,
held by `tests/federation/test_flwr_surface.py`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto
from flwr.common.serde_utils import metadata_from_proto, metadata_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import ConfigRecord
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from federation import tls, tree
from federation.arrays import Array
from federation.client.hub_errors import AnswerLost, HubUnreachable, NotActive, RunOver
from federation.client.objects import MODEL_RECORD
from federation.client.ports import MAX_REPLY_CONTEXT_BYTES
from mediator.errors import HubCode, IntegrityBroken, Malformed
from mediator.grammar import MAX_SIGNED_BYTES
from mediator.types import ReleaseEnvelope

R = TypeVar("R")

INSTRUCTION_RECORD = "cloister"
INSTRUCTION_FIELD = "instruction"
# `query`, `system`, suffixes and the legacy types have no meaning here
MESSAGE_TYPES = frozenset({"train", "evaluate"})
# one chunk is 5 MiB; the hub's ingress takes 16 MB, and we take no more from it
MAX_RESPONSE_BYTES = 16 << 20
# Flower's lower bound; a node is offline after twice this without a heartbeat
HEARTBEAT_INTERVAL_S = 10.0
# a message may be pulled while its objects are still on their way into the SuperLink
_OBJECT_POLL_S = 0.02
_OBJECT_PATIENCE_S = 60.0
_PARALLEL = 4
_KEEP_BYTES = 256 << 20
_RUN_OVER = 2007  # flwr.supercore.error.ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED


@dataclass(frozen=True)
class FlowerTask:
    """What one Flower message asks: the signed instruction, the model, and what a reply to it needs (opaque)."""

    signed: str
    reply_context: bytes
    tensors: dict[str, Array]


class Fleet:
    """The Fleet API for one node. Every method blocks; every one may raise `HubUnreachable`."""

    def __init__(self, hub: str, context: tls.Context, flower_key: bytes, max_model_bytes: int) -> None:
        key = serialization.load_pem_private_key(flower_key, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IntegrityBroken("the Flower node key is not an elliptic-curve key")
        self._public = public_key_to_bytes(key.public_key())
        self._max_model_bytes = max_model_bytes
        self._client = FleetHttpClient(
            hub,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
            verify=context,
        )
        self._client.close()
        # no redirects to elsewhere, no proxy out of the environment, no unbounded body
        self._client._client = httpx.Client(transport=_Capped(context), timeout=60.0, trust_env=False)
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="objects")
        self._kept: dict[str, bytes] = {}
        self.node_id = 0

    def activate(self, known_id: int) -> int:
        """Come online, and return this node's Flower id. `known_id` is what it returned last time, or 0.

        A node that was killed still counts as online, and Flower refuses to activate it then; its heartbeat is
        taken. Raises `NotActive` when the hub takes neither.
        """
        self.node_id = known_id
        if known_id and self.heartbeat():
            return known_id
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_INTERVAL_S)
        self.node_id = int(self._call(self._client.ActivateNode, request).node_id)
        return self.node_id

    def heartbeat(self) -> bool:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_INTERVAL_S)
        try:
            return bool(self._call(self._client.SendNodeHeartbeat, request).success)
        except NotActive:
            return False

    def deactivate(self) -> None:
        self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=self.node_id))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def pull(self) -> bytes | None:
        """The next message's metadata (opaque; the hub will not send it again), or None."""
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        note: bytes = ProtoMessage(metadata=response.messages_list[0].metadata).SerializeToString()
        return note

    def fetch(self, note: bytes) -> FlowerTask:
        """What the message asks for.

        1. Every object hashes to its id and has a place in an instruction (`tree.collect`).
        2. The message is of type train or evaluate, carries no error, and is addressed to this node.
        3. It holds the records `model` and `cloister`, and nothing else.
        4. `cloister` holds the signed instruction, and nothing else.

        Raises `Malformed`; then nobody is told more than that.
        """
        given = _metadata(note)
        self._check_ours(given.dst_node_id)
        run_id, root = given.run_id, given.message_id
        seen: dict[str, bytes] = {}
        nodes = tree.collect(root, lambda keys: self._pull_objects(run_id, keys, seen), self._max_model_bytes)  # (1)
        # the model evaluated after a round is the next round's start: its objects need not come twice
        self._kept = seen if sum(map(len, seen.values())) <= _KEEP_BYTES else {}
        message = _proto(nodes[root].body)
        metadata = _metadata_of(message)
        if metadata.message_type not in MESSAGE_TYPES or message.HasField("error"):  # (2)
            raise Malformed("a message that is no instruction")
        if metadata.dst_node_id != self.node_id or metadata.run_id != run_id or len(nodes[root].children) != 1:
            raise Malformed("a message for somebody else")
        records = tree.references(nodes[nodes[root].children[0]])
        if records.keys() != {MODEL_RECORD, INSTRUCTION_RECORD}:  # (3)
            raise Malformed("an instruction with other records than a model and a signed instruction")
        model, config = nodes[records[MODEL_RECORD]], nodes[records[INSTRUCTION_RECORD]]
        if model.type != "ArrayRecord" or config.type != "ConfigRecord":
            raise Malformed("an instruction whose records are of the wrong kind")
        metadata.__dict__["_message_id"] = root
        context = ProtoMessage(metadata=metadata_to_proto(metadata)).SerializeToString(deterministic=True)
        if len(context) > MAX_REPLY_CONTEXT_BYTES:
            raise Malformed("a message with more metadata than a message has")
        return FlowerTask(_signed(config.body), context, tree.tensors(model, nodes, self._max_model_bytes))  # (4)

    def confirm(self, note: bytes) -> None:
        """Tell the SuperLink that it may forget the message's objects."""
        metadata = _metadata(note)
        self._check_ours(metadata.dst_node_id)
        request = ConfirmMessageReceivedRequest(
            node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
        )
        self._call(self._client.ConfirmMessageReceived, request)

    def push_refusal(self, reply_context: bytes, code: HubCode) -> None:
        """Answer with an error whose whole text is one word of the closed vocabulary."""
        error = Error(code=ErrorCode.MOD_FAILED_PRECONDITION, reason=HubCode(code).value)
        message = make_message(metadata=_reply(reply_context), error=error)
        self._push(message_to_proto(message), ObjectTree(object_id=message.object_id))

    def push_release(self, reply_context: bytes, envelope: ReleaseEnvelope, read: Callable[[str], bytes]) -> None:
        """Push the released objects, and nothing that the envelope does not name.

        `read` gives an object's bytes by its id. The outer Message is all that is made here.
        Raises `IntegrityBroken` when the spool holds other bytes than core signed.
        """
        sizes = {entry.id: entry.size_bytes for entry in envelope.objects}

        def checked(key: str) -> bytes:
            content = read(key)
            if key not in sizes or len(content) != sizes[key] or hashlib.sha256(content).hexdigest() != key:
                raise IntegrityBroken("the spool holds an object that no envelope names")
            return content

        metadata = _reply(reply_context)
        outer = outer_message(metadata, envelope.root)
        message = message_to_proto(make_message(metadata=metadata, content=RecordDict()))
        root = ObjectTree(object_id=hashlib.sha256(outer).hexdigest(), children=[_branch(envelope.root, checked)])
        session, missing = self._push(message, root)
        order = [key for key in [*sizes, root.object_id] if key in missing]

        def push(key: str) -> None:
            content = outer if key == root.object_id else checked(key)
            self._push_object(metadata.run_id, session, key, content)

        list(self._pool.map(push, order))

    def _push(self, message: ProtoMessage, root: ObjectTree) -> tuple[str, frozenset[str]]:
        self._check_ours(message.metadata.src_node_id)
        message.metadata.message_id = root.object_id
        # how long the work took is nobody's business: no `clientapp_runtime_list`
        request = PushMessagesRequest(node=self._node, messages_list=[message], message_object_trees=[root])
        response = self._call(self._client.PushMessages, request)
        missing = frozenset(response.objects_to_push)
        if message.HasField("error") and root.object_id in missing:
            body = ProtoMessage(metadata=message.metadata, error=message.error)
            body.metadata.message_id = ""
            content = _object("Message", "", body.SerializeToString(deterministic=True))
            self._push_object(message.metadata.run_id, response.session_id, root.object_id, content)
        return str(response.session_id), missing

    def _push_object(self, run_id: int, session: str, key: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=self._node, run_id=run_id, object_id=key, object_content=content, session_id=session
        )
        # `stored` is false for a repetition whose first answer was lost: nothing to act on
        self._call(self._client.PushObject, request)

    def _pull_objects(self, run_id: int, keys: Sequence[str], seen: dict[str, bytes]) -> Iterable[bytes]:
        def pull(key: str) -> bytes:
            seen[key] = self._kept[key] if key in self._kept else request(key)
            return seen[key]

        def request(key: str) -> bytes:
            question = PullObjectRequest(node=self._node, run_id=run_id, object_id=key)
            give_up = time.monotonic() + _OBJECT_PATIENCE_S
            while True:
                response = self._call(self._client.PullObject, question)
                if not response.object_found:
                    raise RunOver("the hub has forgotten an object of this message")
                if response.object_available:
                    return bytes(response.object_content)
                if time.monotonic() > give_up:
                    raise HubUnreachable("an object of this message does not arrive at the hub")
                time.sleep(_OBJECT_POLL_S)

        return self._pool.map(pull, keys)

    def _check_ours(self, node_id: int) -> None:
        """A SuperLink gives every node a new id when it is started, and answers HTTP 500 about runs of one before it.

        Raises `RunOver` for a message that was meant for an earlier id of ours.
        """
        if node_id != self.node_id:
            raise RunOver("the hub was started anew since it asked")

    @property
    def _node(self) -> Node:
        return Node(node_id=self.node_id)

    def _call(self, method: Callable[[Any], R], request: object) -> R:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == httpx.codes.FORBIDDEN and _error_code(error.response) == _RUN_OVER:
                raise RunOver("the hub has ended this run") from error
            if status in (httpx.codes.UNAUTHORIZED, httpx.codes.PRECONDITION_FAILED):
                raise NotActive(f"the hub answers with HTTP {status}") from error
            kind = AnswerLost if status >= httpx.codes.INTERNAL_SERVER_ERROR else HubUnreachable
            raise kind(f"the hub answers with HTTP {status}") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise HubUnreachable(f"the hub does not answer ({type(error).__name__})") from error
        except Exception as error:
            raise AnswerLost(f"the hub's answer was lost ({type(error).__name__})") from error


def outer_message(metadata: Metadata, root: str) -> bytes:
    """The bytes of the Message object around a RecordDict whose id is `root`, without having that RecordDict."""
    proto = metadata_to_proto(metadata)
    proto.message_id = ""
    return _object("Message", root, ProtoMessage(metadata=proto).SerializeToString(deterministic=True))


def _object(kind: str, children: str, body: bytes) -> bytes:
    head = HEAD_VALUE_DIVIDER.join((kind, children, str(len(body)))).encode("ascii")
    return head + HEAD_BODY_DIVIDER + body


def _branch(key: str, read: Callable[[str], bytes]) -> ObjectTree:
    children = tree.split(read(key)).children
    return ObjectTree(object_id=key, children=[_branch(child, read) for child in children])


def _proto(raw: bytes) -> ProtoMessage:
    try:
        return ProtoMessage.FromString(raw)
    except Exception as error:
        raise Malformed("a message that is not a Flower message") from error


def _metadata(note: bytes) -> Metadata:
    return _metadata_of(_proto(note))


def _metadata_of(message: ProtoMessage) -> Metadata:
    try:
        return metadata_from_proto(message.metadata)
    except Exception as error:
        raise Malformed("a message without proper metadata") from error


def _reply(reply_context: bytes) -> Metadata:
    """A reply's metadata. Its time is the instruction's own, so a repeated push has the same id and tells no time."""
    asked = _metadata(reply_context)
    return Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=asked.src_node_id,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=asked.created_at,
        ttl=asked.ttl,
        message_type=asked.message_type,
        src_task_id=asked.dst_task_id,
        dst_task_id=asked.src_task_id,
    )


def _signed(body: bytes) -> str:
    if len(body) > MAX_SIGNED_BYTES + 1024:
        raise Malformed("a signed instruction that is too large")
    try:
        items = ConfigRecord.FromString(body).items
    except Exception as error:
        raise Malformed("a record that is not a Flower configuration") from error
    kinds = [(item.key, item.value.WhichOneof("value")) for item in items]
    if kinds != [(INSTRUCTION_FIELD, "string")]:
        raise Malformed("a configuration with more or less than a signed instruction")
    return str(items[0].value.string)


def _error_code(response: httpx.Response) -> object:
    try:
        plain = json.loads(response.content)
    except Exception:  # noqa: BLE001 - an answer without a code of the SuperLink's
        return None
    return plain.get("code") if isinstance(plain, dict) else None


class _Capped(httpx.BaseTransport):
    """HTTP over our TLS context, where no body is larger than `MAX_RESPONSE_BYTES` and none is compressed."""

    def __init__(self, context: tls.Context) -> None:
        self._inner = httpx.HTTPTransport(verify=context, trust_env=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["accept-encoding"] = "identity"
        response = self._inner.handle_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise httpx.DecodingError("a compressed response", request=request)
        stream = response.stream
        assert isinstance(stream, httpx.SyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_CappedStream(stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._inner.close()


class _CappedStream(httpx.SyncByteStream):
    def __init__(self, inner: httpx.SyncByteStream) -> None:
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._inner:
            size += len(piece)
            if size > MAX_RESPONSE_BYTES:
                raise httpx.ReadError("a response over the limit")
            yield piece

    def close(self) -> None:
        self._inner.close()
