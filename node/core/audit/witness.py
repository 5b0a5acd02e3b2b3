"""What is shown to the hub to be witnessed, and what the hub's own lines say of this log.

The hub says first which checkpoint it signed last. Where this log goes on from there, the next checkpoint is shown with
the proof. Where it does not, the log was set back: that is noted, and `epochs` has what comes then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from federation.client.ports import ShownCheckpoint
from mediator.audit import Action, Checkpoint, LogHead, Verdict, WitnessedCheckpoint, decode_checkpoint, decode_witness
from mediator.errors import IntegrityBroken, Malformed
from mediator.tree import prove
from node.core.audit import epochs
from node.core.context import Core, event
from node.core.refusals import WITNESS
from node.core.store.reads import Reads

# how often a stream without news looks whether its reader is still there
_LOOK_S = 1.0


class WitnessDesk:
    """What core knows of its witness since this process began. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._held: LogHead | None = None
        self.refused = False  # the checkpoint that it was shown last
        self._told = False  # and whether that is written down

    def holds(self, text: str, refused: bool) -> None:
        """Hear which checkpoint the hub signed last (`text`, empty for none), at first or after it refused one.

        Raises `Malformed` or `IntegrityBroken` for what is no line of a witness of ours about this site.
        """
        shown = open_line(self._core, text) if text else None
        if refused:
            self._note_refused(0 if shown is None else shown.checkpoint.size)
        self._held = None if shown is None else shown.checkpoint.head
        if shown is None:
            return
        with self._core.store.read() as snapshot:
            whole, ours = _goes_on_from(snapshot, shown.checkpoint), _is_ours(snapshot, shown.checkpoint)
        if ours:  # its answer was lost
            self._keep(shown)
        if not whole:
            own = self._core.keys.audit
            try:
                shown.checkpoint.verify({own.key_id: own.verify_key})
            except IntegrityBroken:  # a witness's word alone, which must not end what a hospital does: noted and shown
                self._note_refused(shown.checkpoint.size)
            else:
                epochs.note_set_back(self._core, shown.checkpoint.head)

    def witnessed(self, text: str) -> None:
        """Keep a checkpoint that the hub co-signed. Raises `Malformed` or `IntegrityBroken` for anything else."""
        shown, own = open_line(self._core, text), self._core.keys.audit
        shown.checkpoint.verify({own.key_id: own.verify_key})
        if self._keep(shown):  # a line of before, shown again, says nothing of how the witness stands to this log now
            self._held, self.refused, self._told = shown.checkpoint.head, False, False

    def to_show(self, active: Callable[[], bool]) -> Iterator[ShownCheckpoint]:
        """The newest checkpoint, whenever there is one that no witness has signed: it covers those before it.

        What a look costs does not grow with the log: two looks into indexes, and the records since the last line.
        """
        store = self._core.store
        shown, commits = 0, -1
        while active():
            before, commits = commits, store.wait_for_commit(commits, _LOOK_S)
            if commits == before:
                continue
            with store.read() as snapshot:
                newest = snapshot.newest_checkpoint()
                if newest is None or newest.size <= max(shown, snapshot.witnessed_size()):
                    continue
                checkpoint = decode_checkpoint(newest.text.encode("ascii"))
                base = self._proven_from(checkpoint)
                proof = prove(snapshot.tree_at(base), snapshot.lines_between(base, newest.size))
            shown = newest.size
            yield ShownCheckpoint(newest.text, proof)

    # --- inside

    def _proven_from(self, checkpoint: Checkpoint) -> int:
        """Where a proof begins: at what the hub holds of this epoch, or at what the epoch says it kept."""
        held = self._held
        if held is not None and held.epoch == checkpoint.number:
            return min(held.size, checkpoint.size)
        return 0 if checkpoint.epoch is None else checkpoint.epoch.kept

    def _keep(self, shown: WitnessedCheckpoint) -> bool:
        """False where it was kept before."""
        core = self._core
        kept = event(Action.CHECKPOINT, f"witness/{shown.checkpoint.size}", Verdict.DONE)
        with core.store.transaction(core.clock()) as tx:
            return tx.add_witnessed(shown, event=kept)

    def _note_refused(self, size: int) -> None:
        """Write down that the witness refuses this log: once, until it signs again."""
        refused = event(Action.CHECKPOINT, f"witness/{size}", Verdict.REFUSED)
        with self._lock:
            told, self.refused = self._told, True
            if not told:
                self._core.refusals.record(self._core.store, self._core.clock(), WITNESS, refused)
                self._told = True


def open_line(core: Core, text: str) -> WitnessedCheckpoint:
    """A line that a witness of ours signed about this site. Raises `Malformed`, `IntegrityBroken`."""
    try:
        shown = decode_witness(text.encode("ascii"))
    except UnicodeEncodeError as error:
        raise Malformed("not a witnessed checkpoint") from error
    shown.verify(core.trust.witnesses)
    if shown.checkpoint.site != core.site:
        raise IntegrityBroken("a witnessed checkpoint of another site")
    return shown


def _goes_on_from(snapshot: Reads, seen: Checkpoint) -> bool:
    """Whether this log goes on where a witness saw it last: that is its own beginning, or what its epoch follows."""
    opened = snapshot.epoch()
    own = None if opened is None else opened.epoch
    if seen.epoch == own:
        return epochs.contains(snapshot, seen.head)
    return own is not None and own.before == seen.head


def _is_ours(snapshot: Reads, seen: Checkpoint) -> bool:
    found = snapshot.checkpoint(seen.size)
    return found is not None and decode_checkpoint(found.text.encode("ascii")) == seen
