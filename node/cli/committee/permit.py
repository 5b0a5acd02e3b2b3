"""`cloister permit`: what the Access Committee does, on a machine of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mediator import canonical
from mediator.errors import Code, Denied, Malformed
from mediator.permit import open_permit
from mediator.signatures import KeyRing, VerifyKey, open_signed, peek_kind
from mediator.terms import ungrantable
from mediator.types import Acceptance, DataPermit, Instruction, RevocationList, RunOrder
from node.cli.documents import made, unverified
from node.cli.files import parse_json, read_text, write_new
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
    number: Annotated[int, typer.Option(help="the list's number: one more than the last list's", min=1)],
    permit: Annotated[list[str] | None, typer.Option(help="a permit that no longer holds (repeat)")] = None,
) -> None:
    """Sign a revocation list. Sign one at least daily, also when nothing is revoked: nodes refuse an old list."""
    issued = datetime.now(UTC).replace(microsecond=0)
    document = made(RevocationList, number=number, issued=issued, permits=tuple(sorted(permit or ())))
    write_new(out, read_signing_key(key).sign(document))
    say(f"signed revocation list {number} with {len(document.permits)} permits: {out}")


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
        document = unverified(_KINDS[kind], text)
        say("the signature was not checked: give --key to check it")
    else:
        check_not_private(public_key)
        document = open_signed(_KINDS[kind], text, KeyRing([VerifyKey.from_text(read_text(public_key))])).document
    show(document, as_json=as_json)
