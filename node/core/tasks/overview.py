"""What hospital staff are shown: read from the store, nothing that names a patient or a file."""

from __future__ import annotations

from node.core.records import RunOrderRow
from node.core.store.reads import Reads
from node.ipc.jobs import RunAccount


def run_account(snapshot: Reads, order: RunOrderRow) -> RunAccount:
    """What one run was charged and what it released. Rounds are training rounds; releases are counted once each,
    however often a hub that restarted had them delivered again."""
    totals = snapshot.ledger_totals(order.permit, order.permit_version, order.run)
    released = {(row.round, row.task): row for row in snapshot.releases(order.run)}
    charged = {row.round for row in snapshot.charges(order.permit) if row.run == order.run and row.round > 0}
    served = {round_ for round_, _task in released}
    return RunAccount(
        run=order.run,
        permit=order.permit,
        permit_version=order.permit_version,
        rounds=order.rounds,
        rounds_charged=len(charged),
        bytes_charged=totals.size_bytes,
        bytes_released=sum(row.size_bytes for row in released.values()),
        releases=len(released),
        epsilon=totals.epsilon,
        # an analysis is over when its files are in the airlock: it releases nothing to a hub
        state="complete" if order.rounds in served or snapshot.is_held(order.run) else order.state,
    )
