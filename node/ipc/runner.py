"""The broker as core sees it: `mediator.ports.Runner` over `broker.sock`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mediator.errors import Code, Denied, Reason
from mediator.ports import JobEvent, Prepared
from mediator.types import OutputFile
from node.ipc import broker as words
from node.ipc.channel import Client
from node.ipc.messages import SignedText

# the engine may have to unpack an image's layers before it answers
_PREPARE_S = 120.0
# a copy of /out at 50 MB/s for the largest model the permits here name, with room
_FINALISE_S = 600.0


class RemoteRunner:
    """Asks the broker for each verb. Raises what the broker raised, or `NotNow` while it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def prepare(self, signed_spec: str) -> Prepared:
        return self._client.call(words.PREPARE, SignedText(signed_spec), timeout_s=_PREPARE_S)

    def execute(self, job: str) -> Iterator[JobEvent]:
        yield from self._client.stream(words.EXECUTE, words.ContainerId(job))

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        """The files, each exactly as long as announced; a stream of another shape is a broken contract."""
        files: list[OutputFile] = []
        name, due, parts = "", 0, [b""]
        for item in self._client.download(words.FINALISE, words.FinaliseTask(job, task), timeout_s=_FINALISE_S):
            if isinstance(item, bytes):
                parts.append(item)
                due -= len(item)
            else:
                if due != 0:
                    break
                name, due, parts = item.name, item.size_bytes, []
            if due == 0:
                files.append(OutputFile(name, b"".join(parts)))
        if due != 0:
            raise Denied(Reason(Code.CONTRACT_VIOLATION, "a file of another size than announced"))
        return files

    def terminate(self, job: str, grace_s: float) -> None:
        self._client.call(words.TERMINATE, words.Terminate(job, grace_s), timeout_s=grace_s + 30)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        return self._client.call(words.CLEAN, words.ContainerIds(tuple(keep)), timeout_s=120.0).jobs
