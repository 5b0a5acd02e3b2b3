"""`cloister permit`: what the Access Committee does, on a machine of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator import canonical
from mediator.errors import Code, Denied, Malformed, UnsupportedVersion, UsageFault
from mediator.permit import open_permit, open_revocations
from mediator.signatures import KeyRing, Signed, VerifyKey, open_signed, peek_kind
from mediator.terms import ungrantable
from mediator.types import Acceptance, DataPermit, Instruction, RevocationList, RevocationListV2, RunOrder
from node.cli.documents import made, unverified
from node.cli.files import parse_json, read_text, write_new
from node.cli.id_prefix import one_of
from node.cli.options import Json, Key, Out
from node.cli.output import say, show
from node.host.keys import check_not_private, read_signing_key
from node.kit.advice import ADVICE

app = typer.Typer(no_args_is_help=True)

_KINDS: dict[str, Any] = {cls.KIND: cls for cls in (DataPermit, Acceptance, RunOrder, RevocationList, Instruction)}
# A trial's other hints are about a program and its outputs, and would name what is not the cause here.
_MENDED = {
    code: ADVICE[code]
    for code in (
        Code.PERMIT_TOO_LARGE, Code.TENSOR_ORDER, Code.CONDITION_UNENFORCEABLE, Code.METRIC_UNPROTECTED,
    )
}  # fmt: skip


@app.command("sign")
def sign(draft: Annotated[Path, typer.Argument(help="the permit as JSON")], key: Key, out: Out) -> None:
    """Sign a data permit. The draft is JSON with the fields of a permit; one that nobody could use is refused.

    No placeholder may be left in it, and its `issuer` is the id of the key that signs.
    """
    permit, signer = canonical.from_plain(DataPermit, parse_json(draft, read_text(draft))), read_signing_key(key)
    if reasons := ungrantable(permit, signer.key_id, datetime.now(UTC)):
        raise Denied(reasons, hint=_MENDED.get(reasons[0].code, "mend the draft: nothing was signed"))
    text = signer.sign(permit)
    open_permit(text, KeyRing([signer.verify_key]))  # what nobody could open is not handed out
    write_new(out, text)
    say(f"signed permit {permit.permit} version {permit.permit_version}: {out}")


@app.command("revocations")
def revocations(
    key: Key,
    out: Out,
    previous: Annotated[
        Path | None, typer.Option(help="the last list: all that it revokes is revoked by this one, too")
    ] = None,
    previous_key: Annotated[
        list[Path] | None,
        typer.Option(help="the public key of a colleague who signed the last list (repeat)"),
    ] = None,
    permit: Annotated[list[str] | None, typer.Option(help="a permit that no longer holds (repeat)")] = None,
    restore: Annotated[list[str] | None, typer.Option(help="a revoked permit that holds again (repeat)")] = None,
    number: Annotated[int | None, typer.Option(help="the list's number; one more than the last list's", min=1)] = None,
) -> None:
    """Sign a revocation list. Sign one at least daily, also when nothing is revoked: nodes refuse an old list.

    What was revoked stays so until a list restores it by name. The last list is what the hub's coordinator gets from
    `cloister hub revocations print`.
    """
    signer = read_signing_key(key)
    last = None if previous is None else _last_list(previous, signer.verify_key, previous_key or [])
    revoked = () if last is None else last.document.permits
    restored = [one_of(each, revoked, "revoked permit", acts=True) for each in restore or []]
    document = _next_list(last, permit or [], restored, number)
    write_new(out, signer.sign(document))
    say(f"signed revocation list {document.number} with {len(document.permits)} permits: {out}")
    if restored:
        say(f"restored: {', '.join(sorted(restored))}")


def _last_list(file: Path, own: VerifyKey, others: list[Path]) -> Signed[RevocationList]:
    for each in others:
        check_not_private(each)
    ring = KeyRing([own, *(VerifyKey.from_text(read_text(each)) for each in others)])
    try:
        return open_revocations(read_text(file), ring)
    except Denied as error:
        raise Denied(error.reasons, hint="name the key that signed the last list: --previous-key") from error


def _next_list(
    last: Signed[RevocationList] | None, revoke: list[str], restore: list[str], number: int | None
) -> RevocationListV2:
    """The list after `last`: what it says and what is new. Raises `UsageFault`."""
    newest = 0 if last is None else last.document.number
    if last is None and (number or 1) > 1:
        raise UsageFault(
            "a list after the first follows one", hint="--previous, with what `cloister hub revocations print` prints"
        )
    if number is not None and number <= newest:
        raise UsageFault(f"the last list is number {newest}", hint="numbers only grow")
    revoked = set() if last is None else set(last.document.permits)
    if unknown := sorted(set(restore) - revoked):
        raise UsageFault(f"{unknown[0]} is not revoked by the last list", hint="only what is revoked can be restored")
    before = last.document.restored if last is not None and isinstance(last.document, RevocationListV2) else ()
    return made(
        RevocationListV2,
        number=newest + 1 if number is None else number,
        issued=datetime.now(UTC).replace(microsecond=0),
        permits=tuple(sorted((revoked - set(restore)) | set(revoke))),
        previous_sha256=None if last is None else last.sha256,
        restored=tuple(sorted((set(before) | set(restore)) - set(revoke))),
    )


@app.command("show")
def show_document(
    file: Annotated[Path, typer.Argument(help="a signed document of any kind")],
    public_key: Annotated[Path | None, typer.Option("--key", help="the public key to check the signature with")] = None,
    as_json: Json = False,
) -> None:
    """Print what a signed document says; with --key, only if that key signed it."""
    text = read_text(file)
    kind = peek_kind(text)
    if kind not in _KINDS:
        raise Malformed(f"{file} is of an unknown kind")
    if public_key is None:
        document = _unverified(kind, text)
        say("the signature was not checked: give --key to check it")
    else:
        check_not_private(public_key)
        ring = KeyRing([VerifyKey.from_text(read_text(public_key))])
        opens = open_revocations if kind == RevocationList.KIND else partial(open_signed, _KINDS[kind])
        document = opens(text, ring).document
    show(document, as_json=as_json)


def _unverified(kind: str, text: str) -> Any:
    """What a document of any version says."""
    try:
        return unverified(_KINDS[kind], text)
    except UnsupportedVersion:
        if kind != RevocationList.KIND:
            raise
        return unverified(RevocationListV2, text)
