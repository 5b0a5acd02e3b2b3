"""A core for the link to talk to: admits every instruction the hub signed, and answers with real releases.

"Training" moves every tensor towards this site's own value, so that three sites' average is known beforehand. What it
releases is built by the real codec and signed by the site's real release key. `conduct` changes its manners.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from federation.client.objects import FlowerCodec
from federation.client.ports import Delivery, Greeting, OutgoingReply, Retry, ShownCheckpoint, Trouble
from mediator import tensors
from mediator.errors import CloisterError, Code, HubCode
from mediator.signatures import KeyRing, SigningKey, open_signed
from mediator.types import Instruction, Kind, ReleaseEnvelope, TensorSpec

Answer = Callable[["FakeCore", Instruction, bytes], "OutgoingReply | None"]


@dataclass
class FakeCore:
    """`federation.client.ports.CorePort` without a node behind it. It outlives any number of links."""

    site: str
    release: SigningKey
    instruction_keys: KeyRing
    specs: tuple[TensorSpec, ...]
    spool: Path
    value: float = 1.0
    examples: int = 10
    seconds: float = 0.0
    refuse: HubCode | None = None
    refuse_times: int = 1 << 30
    answer: Answer | None = None
    connected: bool = False
    documents: list[str] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    released: list[ReleaseEnvelope] = field(default_factory=list)
    computed: list[tuple[str, int, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    to_witness: list[ShownCheckpoint] = field(default_factory=list)
    witness_lines: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    alarms: list[Code] = field(default_factory=list)
    witness_held: list[tuple[str, bool]] = field(default_factory=list)
    hub_times: list[datetime] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._undelivered: dict[str, OutgoingReply] = {}
        self._answers: dict[tuple[str, bytes], Delivery] = {}
        self._results: dict[tuple[str, int, str], tuple[str, Mapping[str, bytes]]] = {}
        self._stir = asyncio.Event()

    async def hello(self, software: str, connected: bool) -> Greeting:
        self.connected = connected
        return Greeting(self.site, False)

    async def certificate_alarm(self, code: Code) -> None:
        self.alarms.append(code)

    async def deliver_document(self, text: str) -> str:
        self.documents.append(text)
        return "kept"

    async def deliver_instruction(self, signed: str, reply_context: bytes, model: AsyncIterator[bytes]) -> Delivery:
        raw = b"".join([piece async for piece in model])
        key = (signed, reply_context)
        if key not in self._answers:
            self._answers[key] = self._admit(signed, reply_context, raw)
        return self._answers[key]

    def _admit(self, signed: str, reply_context: bytes, raw: bytes) -> Delivery:
        if any(text == signed for text, _ in self._answers):
            self.refused.append("instruction_replayed")
            return Delivery(False, HubCode.REFUSED_INSTRUCTION)
        try:
            instruction = open_signed(Instruction, signed, self.instruction_keys).document
            model = tensors.parse(raw, self.specs)
        except CloisterError as error:
            self.refused.append(error.code)
            return Delivery(False, HubCode.REFUSED_INSTRUCTION)
        assert hashlib.sha256(raw).hexdigest() == instruction.model_sha256
        assert instruction.site == self.site
        self.instructions.append(instruction)
        if self.refuse is not None and self.refuse_times > 0:
            self.refuse_times -= 1
            return Delivery(False, self.refuse)
        asyncio.get_running_loop().create_task(self._work(instruction, reply_context, model))
        return Delivery(True)

    async def _work(self, instruction: Instruction, reply_context: bytes, model: Mapping[str, np.ndarray]) -> None:
        await asyncio.sleep(self.seconds)
        outgoing = self.answer(self, instruction, reply_context) if self.answer else None
        if outgoing is None:
            outgoing = self.reply(instruction, reply_context, model)
        self._undelivered[instruction.id] = outgoing
        self._stir.set()

    def reply(self, instruction: Instruction, reply_context: bytes, model: Mapping[str, np.ndarray]) -> OutgoingReply:
        """A release for `instruction`, as a node would make it; a second attempt gets the stored objects."""
        key = (instruction.run, instruction.round, instruction.task.value)
        if key not in self._results:
            self.computed.append(key)
            self._results[key] = self._compute(instruction.task, model)
        root, objects = self._results[key]
        return self.wrap(instruction, reply_context, root, objects)

    def _compute(self, task: Kind, model: Mapping[str, np.ndarray]) -> tuple[str, Mapping[str, bytes]]:
        if task is Kind.TRAIN:
            moved = {
                name: (array + self.value).astype(array.dtype) if array.dtype.kind == "f" else array
                for name, array in model.items()
            }
            return FlowerCodec().encode(task, moved, {"loss": 1.0 / self.examples, "num-examples": self.examples})
        mean = float(np.mean([float(np.mean(array)) for array in model.values()]))
        loss = round(min(abs(mean - 3.0), 1e6), 6)  # a permit's range ends there
        return FlowerCodec().encode(task, {}, {"loss": loss, "auc": 0.5, "num-examples": self.examples})

    def wrap(
        self,
        instruction: Instruction,
        reply_context: bytes,
        root: str,
        objects: Mapping[str, bytes],
        *,
        signed_root: str | None = None,
        listed: Mapping[str, bytes] | None = None,
    ) -> OutgoingReply:
        """An envelope over `objects`, spooled; `signed_root` and `listed` let a test sign something else."""
        envelope = ReleaseEnvelope(
            site=self.site,
            instruction=instruction.id,
            permit=instruction.permit,
            permit_version=instruction.permit_version,
            run=instruction.run,
            round=instruction.round,
            task=instruction.task,
            root=signed_root or root,
            objects=FlowerCodec().listing(objects if listed is None else listed),
            expires=datetime.now(UTC) + timedelta(hours=1),
        )
        folder = self.spool / hashlib.sha256(f"{instruction.id}{instruction.attempt}".encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in objects.items():
            (folder / name).write_bytes(content)
        self.released.append(envelope)
        return OutgoingReply(instruction.id, reply_context, self.release.sign(envelope), None, folder.name)

    async def outbox(self) -> AsyncIterator[OutgoingReply]:
        sent: set[tuple[str, bool]] = set()
        while True:
            self._stir.clear()
            for instruction, outgoing in list(self._undelivered.items()):
                if (key := (instruction, outgoing.folder is None)) not in sent:
                    sent.add(key)
                    yield outgoing
            await self._stir.wait()

    async def may_leave(self, instruction: str) -> bool:
        return instruction in self._undelivered

    async def delivered(self, instruction: str) -> None:
        self._undelivered.pop(instruction, None)

    async def failed(self, kind: str, subject: str, reason: str, final: bool) -> Retry:
        """As the real core counts, with less patience: `node/core/tasks/set_aside.py`."""
        name = f"{kind} {subject}"
        self.failures[name] = self.failures.get(name, 0) + 1
        aside = final or self.failures[name] >= 5
        held = self._undelivered.get(subject)
        if aside and kind == "release" and held is not None:
            self._undelivered[subject] = replace(held, envelope=None, folder=None, hub_code=HubCode.INTERNAL)
            self._stir.set()
        elif aside:
            self._undelivered.pop(subject, None)
        return Retry(self.failures[name], 0.05, aside)

    async def witness_holds(self, text: str, refused: bool) -> None:
        self.witness_held.append((text, refused))

    async def checkpoints(self) -> AsyncIterator[ShownCheckpoint]:
        done = 0
        while True:
            while done < len(self.to_witness):
                done += 1
                yield self.to_witness[done - 1]
            await asyncio.sleep(0.02)

    async def witnessed(self, text: str) -> None:
        self.witness_lines.append(text)

    async def trouble(self, trouble: Trouble) -> None:
        self.troubles.append(trouble)

    async def hub_time(self, time: datetime) -> None:
        self.hub_times.append(time)
