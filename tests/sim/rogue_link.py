"""A link under somebody else's control: real certificate, real Flower key, and no scruples about what it pushes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence

from flwr.app import Error, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree

from federation import control, tls, tree
from federation.client import enrolment
from federation.client.control import ControlChannel
from federation.client.enrolment import LinkConfig
from federation.client.flower import Fleet, FlowerTask, _reply, outer_message
from federation.client.hub_errors import HubUnreachable, RunOver


class RogueLink:
    """Pulls like the real one; pushes whatever it is given, with or without an envelope."""

    def __init__(self, config: LinkConfig) -> None:
        self.own = enrolment.load(config.folder)
        context = tls.client_context(self.own.ca, self.own.certificate, self.own.key)
        self.fleet = Fleet(self.own.bundle.hub, context, self.own.flower_key, config.max_model_bytes)
        self.channel = ControlChannel(self.own.bundle.hub, context)

    async def pull(self) -> FlowerTask:
        """The next instruction."""
        if not self.fleet.node_id:
            await asyncio.to_thread(self.fleet.activate, 0)
        while (note := await asyncio.to_thread(self.fleet.pull)) is None:
            await asyncio.sleep(0.05)
        task = await asyncio.to_thread(self.fleet.fetch, note)
        await asyncio.to_thread(self.fleet.confirm, note)
        return task

    async def post(self, envelope: str) -> str:
        answer = await self.channel.ask(control.RELEASES, control.ReleaseMessage(envelope=envelope), control.Stored)
        return answer.outcome

    async def push(
        self, reply_context: bytes, root: str, objects: Mapping[str, bytes], extra: Mapping[str, bytes] | None = None
    ) -> None:
        """Push a reply of `objects` under `root`; `extra` ones are smuggled in as further children of the tree."""
        with contextlib.suppress(RunOver):  # the hub may end the run before it has seen everything
            await asyncio.to_thread(self._push, reply_context, root, objects, extra or {})

    def _push(self, context: bytes, root: str, objects: Mapping[str, bytes], extra: Mapping[str, bytes]) -> None:
        metadata = _reply(context)
        outer = outer_message(metadata, root)
        contents = {**objects, **extra, hashlib.sha256(outer).hexdigest(): outer}

        def branch(key: str) -> ObjectTree:
            return ObjectTree(object_id=key, children=[branch(child) for child in tree.split(contents[key]).children])

        record = branch(root)
        record.children.extend(ObjectTree(object_id=key) for key in extra)
        top = ObjectTree(object_id=hashlib.sha256(outer).hexdigest(), children=[record])
        message = message_to_proto(make_message(metadata=metadata, content=RecordDict()))
        session, missing = self.fleet._push(message, top)
        for key in missing:
            self.fleet._push_object(metadata.run_id, session, key, contents[key])

    async def push_raw(self, reply_context: bytes, *contents: bytes, outer: bytes | None = None) -> None:
        """Push a reply of any bytes at all: objects under a message, or under `outer` in its place."""
        with contextlib.suppress(RunOver, HubUnreachable):
            await asyncio.to_thread(self._push_raw, reply_context, contents, outer)

    def _push_raw(self, context: bytes, contents: Sequence[bytes], outer: bytes | None) -> None:
        keys = {hashlib.sha256(content).hexdigest(): content for content in contents}
        metadata = _reply(context)
        top = outer_message(metadata, ",".join(keys)) if outer is None else outer
        root = ObjectTree(object_id=hashlib.sha256(top).hexdigest())
        root.children.extend(ObjectTree(object_id=key) for key in keys)
        message = message_to_proto(make_message(metadata=metadata, content=RecordDict()))
        session, missing = self.fleet._push(message, root)
        for key in missing:
            self.fleet._push_object(metadata.run_id, session, key, (keys | {root.object_id: top})[key])

    async def push_error(self, reply_context: bytes, text: str) -> None:
        """Answer with an error of free text."""
        message = make_message(metadata=_reply(reply_context), error=Error(code=0, reason=text))
        top = ObjectTree(object_id=message.object_id)
        await asyncio.to_thread(self.fleet._push, message_to_proto(message), top)

    async def close(self) -> None:
        await asyncio.to_thread(self.fleet.deactivate)
        await self.channel.close()
        self.fleet.close()
