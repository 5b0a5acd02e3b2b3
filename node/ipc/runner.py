"""The broker as core sees it: `mediator.ports.Runner` over `broker.sock`, and the other half that serves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mediator.errors import Code, Denied, Reason
from mediator.ports import JobEvent, Prepared, Runner
from mediator.types import OutputFile
from node.ipc import verbs
from node.ipc.channel import Call, Client, Handler, Verb
from node.ipc.messages import Empty

# the engine may have to unpack an image's layers before it answers
_PREPARE_S = 120.0
# a copy of /out at 50 MB/s for the largest model the permits here name, with room
_FINALISE_S = 600.0


class RemoteRunner:
    """Asks the broker for each verb. Raises what the broker raised, or `NotNow` while it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def prepare(self, signed_spec: str) -> Prepared:
        answer = self._client.call(verbs.PREPARE, verbs.SignedText(text=signed_spec), timeout_s=_PREPARE_S)
        return Prepared(answer.job, answer.fingerprint)

    def execute(self, job: str) -> Iterator[JobEvent]:
        for event in self._client.stream(verbs.EXECUTE, verbs.JobId(job=job)):
            yield JobEvent(event.kind, event.task, event.fraction, event.status, event.code)

    def finalise(self, job: str, task: int) -> Sequence[OutputFile]:
        """The files, each exactly as long as announced; a stream of another shape is a broken contract."""
        files: list[OutputFile] = []
        name, due, parts = "", 0, [b""]
        for item in self._client.download(
            verbs.FINALISE, verbs.FinaliseTask(job=job, task=task), timeout_s=_FINALISE_S
        ):
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
        self._client.call(verbs.TERMINATE, verbs.Terminate(job=job, grace_s=grace_s), timeout_s=grace_s + 30)

    def clean(self, keep: Sequence[str]) -> Sequence[str]:
        return self._client.call(verbs.CLEAN, verbs.Keep(jobs=tuple(keep)), timeout_s=120.0).jobs


def handlers(runner: Runner) -> Mapping[Verb[Any, Any], Handler]:
    """The broker's side of the five verbs."""

    def prepare(request: verbs.SignedText) -> verbs.PreparedAnswer:
        prepared = runner.prepare(request.text)
        return verbs.PreparedAnswer(job=prepared.job, fingerprint=prepared.fingerprint)

    def execute(request: verbs.JobId, call: Call) -> Iterator[verbs.JobHappened]:
        for event in runner.execute(request.job):
            if not call.active:
                return
            yield verbs.JobHappened(
                kind=event.kind, task=event.task, fraction=event.fraction, status=event.status, code=event.code
            )

    def finalise(request: verbs.FinaliseTask, _call: Call) -> Iterator[verbs.FileStart | bytes]:
        for file in runner.finalise(request.job, request.task):
            yield verbs.FileStart(name=file.name, size_bytes=len(file.content))
            yield file.content

    def terminate(request: verbs.Terminate) -> Empty:
        runner.terminate(request.job, request.grace_s)
        return Empty()

    def clean(request: verbs.Keep) -> verbs.Removed:
        return verbs.Removed(jobs=tuple(runner.clean(request.jobs)))

    return {
        verbs.PREPARE: prepare,
        verbs.EXECUTE: execute,
        verbs.FINALISE: finalise,
        verbs.TERMINATE: terminate,
        verbs.CLEAN: clean,
    }
