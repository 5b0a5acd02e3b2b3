"""What stands at the edges, fed with anything: each target takes bytes, and raises where an edge is not total.

The fuzzer (`fuzz_edges.py`) searches; what it found is kept and replayed in `test_edges.py` (`FOUND`).
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.recorddict_pb2 import ConfigRecord

from federation import control, pki
from federation.arrays import read_npy, write_npy
from federation.client.flower import Fleet, FlowerTask
from federation.client.hub_errors import RunOver
from federation.hub.flower.reading import take_apart
from mediator.audit import decode_checkpoint, decode_witness
from mediator.errors import CloisterError, Malformed, NotNow
from mediator.signatures import KeyRing, SigningKey, open_signed, peek_kind, peek_payload
from mediator.types import Instruction, ReleaseEnvelope
from node.core import staff
from node.core.core import CoreProcess
from node.core.imports import intake_handlers
from node.core.tasks import link_handlers
from node.ipc import broker as broker_words
from node.ipc import intake as intake_words
from node.ipc import link as link_words
from node.ipc.caller import Caller
from node.ipc.messages import chunk_frames, pack, pack_error, unpack, unpack_error, upload_chunks
from node.ipc.staff import STAFF
from node.ipc.verb import Handler, Verb, verbs_in
from tests.federation.pieces import ARRAY, Part, array, message, metrics, record, reply
from tests.fuzz.draw import ODD_TEXTS, Draw

LIMIT = 1 << 20
NODE = 7
KEY = SigningKey(b"f" * 32)
RING = KeyRing([KEY.verify_key])
# verbs that only an engine can answer
ENGINES = ("canary", "self_test")


# --- the hub reads a site's reply -----------------------------------------------------------------------------


def hub_reply(raw: bytes) -> None:
    """A reply's objects, ids made to fit: it is read, or `Malformed`."""
    draw = Draw(raw)
    honest = draw.pick((reply(), message(record("RecordDict", metrics=metrics())), _named(draw)))
    contents: dict[str, bytes] = {}
    top = _mutated(draw, honest).put(contents)
    with contextlib.suppress(Malformed):
        take_apart("aachen", top, contents, LIMIT)
    with contextlib.suppress(Malformed):
        read_npy(draw.changed(write_npy(ARRAY)), draw.pick(("float32", "int64", "object", "")), (2, 3))


def _named(draw: Draw) -> Part:
    return reply(record("ArrayRecord", **{draw.text(): array(dtype=draw.pick((*ODD_TEXTS, "float32")))}))


def _mutated(draw: Draw, part: Part) -> Part:
    for _ in range(draw.byte() % 4):
        part = _nested(draw, part)
    return part


def _nested(draw: Draw, part: Part) -> Part:
    if part.raw is None and part.parts and draw.byte() % 3:
        at = draw.byte() % len(part.parts)
        changed = _nested(draw, part.parts[at])
        return replace(part, parts=(*part.parts[:at], changed, *part.parts[at + 1 :]))
    contents: dict[str, bytes] = {}
    head, _, body = contents.get(part.put(contents), b"").partition(b"\0")
    content = contents[part.put({})] if not head else head + b"\0" + body
    kind, _, rest = content.partition(b"\0")
    if draw.byte() % 2:  # a body with its length: it gets past the head
        new = draw.changed(rest)
        return replace(part, raw=kind.rpartition(b" ")[0] + b" %d\0" % len(new) + new)
    return replace(part, raw=draw.changed(content))


# --- the link reads what the hub sends ------------------------------------------------------------------------


class _Offline(Fleet):
    """The real adapter, with objects at hand instead of a hub."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.node_id, self._max_model_bytes, self._kept = NODE, LIMIT, {}
        self._contents = contents

    def _pull_objects(self, run_id: int, keys: Sequence[str], seen: dict[str, bytes]) -> Iterable[bytes]:
        if not self._contents.keys() >= set(keys):
            raise RunOver("the hub has forgotten an object of this message")
        return [self._contents[key] for key in keys]


def link_inbound(raw: bytes) -> None:
    """A message, an event or an answer of the hub's: it is taken apart, or `Malformed`."""
    draw = Draw(raw)
    if draw.byte() % 3 == 0:
        kind = draw.pick(_MESSAGES)
        with contextlib.suppress(Malformed):
            control.decode(kind, draw.changed(draw.pick(_LINES)) if draw.byte() % 2 else draw.rest())
        return
    metadata = ProtoMetadata(run_id=3, message_id="", src_node_id=1, dst_node_id=NODE, ttl=60.0, message_type="train")
    text = draw.text().encode("utf-8", "replace").decode()
    signed = signed_record(draw.pick(("instruction", "instructions")), text)
    body = ProtoMessage(metadata=metadata).SerializeToString()
    asked = record("RecordDict", model=record("ArrayRecord", **{draw.text() or "w": array()}), cloister=signed)
    contents: dict[str, bytes] = {}
    metadata.message_id = _mutated(draw, message(asked, body=body)).put(contents)
    note = draw.changed(ProtoMessage(metadata=metadata).SerializeToString())
    with contextlib.suppress(Malformed, RunOver):
        task = _Offline(contents).fetch(note)
        assert isinstance(task, FlowerTask)
    with contextlib.suppress(CloisterError):
        open_signed(Instruction, draw.text(), RING)


def signed_record(name: str, text: str) -> Part:
    """The record that carries a signed instruction."""
    config = ConfigRecord()
    item = config.items.add()
    item.key, item.value.string = name, text
    return Part("ConfigRecord", (), lambda _keys: config.SerializeToString())


_MESSAGES: tuple[type[control.ControlMessage], ...] = tuple(control.ControlMessage.__subclasses__())
_LINES = (
    b'{"version":1,"kind":"document","text":"abc"}',
    b'{"version":1,"kind":"wake","text":""}',
    b'{"version":1,"code":"denied","message":"no"}',
    b'{"version":1,"outcome":"stored"}',
    b'{"version":2}',
)


# --- the hub takes what a site sends beside Flower ------------------------------------------------------------


def hub_control(raw: bytes) -> None:
    """What an enrolled site may post: it is taken, or an error of ours says what is wrong with it."""
    draw = Draw(raw)
    ways: tuple[Callable[[bytes], object], ...] = (
        lambda given: control.decode(draw.pick(_MESSAGES), given),
        lambda given: open_signed(ReleaseEnvelope, given.decode("utf-8", "surrogateescape"), RING),
        lambda given: peek_kind(given.decode("latin-1")),
        lambda given: peek_payload(given.decode("latin-1")),
        lambda given: decode_checkpoint(given).verify({}),
        lambda given: decode_witness(given).verify({}),
        lambda given: _authority().issue_node(given.decode("latin-1"), "aachen", datetime(2026, 1, 1, tzinfo=UTC)),
        lambda given: pki.parse_certificate(given.decode("latin-1")),
    )
    way = draw.pick(ways)
    with contextlib.suppress(CloisterError):
        way(draw.changed(draw.pick(_posted())) if draw.byte() % 3 else draw.rest())


@functools.cache
def _authority() -> pki.Authority:
    return pki.Authority.create(_room() / "ca", "hub", ["localhost"], datetime(2026, 1, 1, tzinfo=UTC))


@functools.cache
def _posted() -> tuple[bytes, ...]:
    request = pki.signing_request(pki.new_key(), "aachen").encode()
    signed = KEY.sign(Instruction(**_INSTRUCTION)).encode()
    checkpoint = b'{"key":"k","kind":"cloister.checkpoint","root":"%s","signature":"%s","site":"a","size":1,' % (
        b"ab" * 32, b"ab" * 64,
    ) + b'"time":"2026-01-01T00:00:00Z","version":1}'  # fmt: skip
    renewal = control.encode(control.Renewal(request=request.decode()))
    return request, signed, checkpoint, renewal, *_LINES


_INSTRUCTION: dict[str, Any] = {
    "run": "r", "permit": "p", "permit_version": 1, "site": "aachen", "round": 1, "task": "train", "attempt": 1,
    "config": {}, "model_sha256": "ab" * 32, "issued": datetime(2026, 1, 1, tzinfo=UTC),
    "expires": datetime(2026, 1, 2, tzinfo=UTC),
}  # fmt: skip


# --- what crosses a socket between processes ------------------------------------------------------------------

_VERBS = (*STAFF, *verbs_in(link_words), *verbs_in(intake_words), *verbs_in(broker_words))


def ipc_frames(raw: bytes) -> None:
    """A frame for any verb: it is the message it was made of, or `Malformed`."""
    draw = Draw(raw)
    verb = draw.pick(_VERBS)
    kind = verb.request if draw.byte() % 2 else verb.answer
    try:
        value = draw.value(kind)
        frame = pack(value)
    except (ValueError, CloisterError):  # no such message can be made
        frame = b"J2" + draw.chunk()
    else:
        assert unpack(kind, frame) == value
    with contextlib.suppress(Malformed):
        unpack(kind, draw.changed(frame))
    with contextlib.suppress(Malformed, NotNow):
        frames = [draw.changed(each) for each in (*chunk_frames([draw.chunk()]), b"E" + draw.chunk())]
        b"".join(upload_chunks(iter(frames)))
    error = unpack_error(draw.changed(pack_error(Malformed("no"))) if draw.byte() % 2 else draw.rest())
    assert isinstance(error, CloisterError)


# --- core answers on its sockets ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gone:
    """A caller that hangs up at once: streams end with what they have."""

    active: bool = False

    def sleep(self, _seconds: float) -> bool:
        return True


def core_sockets(raw: bytes) -> None:
    """A request of staff, link or intake to a whole core: an answer that crosses, or an error of ours."""
    draw, handlers = Draw(raw), _handlers()
    for _ in range(1 + draw.byte() % 3):
        verb = draw.pick(sorted(handlers, key=lambda verb: verb.name))
        try:
            request = unpack(verb.request, pack(draw.value(verb.request)))
        except (ValueError, CloisterError):
            continue
        with contextlib.suppress(CloisterError):
            for answer in _answers(verb, handlers[verb], request, draw):
                pack(answer)


def _answers(verb: Verb[Any, Any], handler: Handler, request: object, draw: Draw) -> Iterable[object]:
    caller = Caller("it_admin")
    if verb.stream == "unary":
        return [handler(caller, request)]
    if verb.stream == "upload":
        return [handler(caller, request, iter([draw.chunk()]))]
    return (item for item in handler(caller, request, _Gone()) if not isinstance(item, bytes))


@functools.cache
def _handlers() -> Mapping[Verb[Any, Any], Handler]:
    from node.host.keys import read_verify_key
    from node.host.state import prepare_state
    from tests.node.core.process.test_process import configured
    from tests.sim.runner import FakeRunner

    staff._WITNESS_WAIT_S = 0.0  # no hub is there to wait for
    config = configured(_room())
    prepare_state(config)
    process = CoreProcess(config, FakeRunner(read_verify_key(config.paths.verdict_public_key), {}))
    process.start()
    atexit.register(process.stop)
    staffs = {verb: handler for verb, handler in staff.handlers(process).items() if verb.name not in ENGINES}
    return {
        **staffs,
        **link_handlers.HANDLERS.of(process),
        **intake_handlers.HANDLERS.of(process.imports),
    }


@functools.cache
def _room() -> Path:
    memory = Path("/dev/shm")
    room = Path(tempfile.mkdtemp(prefix="cl-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, room, ignore_errors=True)
    return room


_ONE_BY_ONE = (hub_reply, link_inbound, hub_control, ipc_frames, core_sockets)


def every_edge(raw: bytes) -> None:
    """All of them in one process, which starts once: the first byte chooses."""
    _ONE_BY_ONE[raw[0] % len(_ONE_BY_ONE) if raw else 0](raw[1:])


TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in (*_ONE_BY_ONE, every_edge)}
