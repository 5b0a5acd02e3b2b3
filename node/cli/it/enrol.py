"""`cloister node enrol`: two files change hands, and the node is known to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import Malformed, UsageFault
from node.cli.admin import load
from node.cli.files import check_new, read_bytes, replace_file, write_new
from node.cli.it.link_folder import as_link, check_user, node_keys
from node.cli.options import Json, NodeConfig, Out
from node.cli.output import say, show
from node.host.accounts import acting_as
from node.host.config import NodeConfig as Config
from node.host.keys import public_path, read_verify_key

if TYPE_CHECKING:
    from federation.control import EnrolmentBundle

app = typer.Typer(no_args_is_help=True)


@app.command("request")
def request(
    config: NodeConfig,
    out: Out,
    new_keys: Annotated[
        bool, typer.Option("--new-keys", help="make new link keys; they are taken into use by `enrol install`")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make the link's keys (they never leave) and write the request for the hub's operator."""
    from federation.client.enrolment import make_request
    from federation.control import EnrolmentRequest, decode, request_id

    loaded = load(config)
    release, audit = node_keys(loaded)
    folder = loaded.paths.link

    def make() -> str:
        made = make_request(folder, loaded.site, release_key=release, audit_key=audit, new_keys=new_keys)
        return made.decode("utf-8")

    check_new(out)
    text = as_link(loaded, make)
    write_new(out, text)
    read_out = request_id(decode(EnrolmentRequest, text.encode("utf-8")))
    if as_json:
        ids = {"release_key_id": release.key_id, "audit_key_id": audit.key_id}
        show({"request": str(out), "request_id": read_out} | ids, as_json=True)
        return
    say(f"wrote {out}; send it to the hub's operator, who will ask you by telephone for")
    say(f"  request id {read_out}")
    say(f"release key id {release.key_id}, audit key id {audit.key_id}")


@app.command("install")
def install(config: NodeConfig, bundle: Annotated[Path, typer.Argument(help="the hub's bundle.json")]) -> None:
    """Install the hub's answer. It must be signed by a hub key that this node's configuration trusts."""
    loaded = load(config)
    check_user(loaded)
    try:
        opened = open_for(loaded, read_bytes(bundle, limit=1 << 20))
    except Malformed as error:
        hint = error.hint or "it wants the file that the hub's `cloister hub node approve` wrote"
        raise Malformed(f"{bundle}: {error.message}", hint=hint) from error
    put(loaded, opened)
    say(f"enrolled at {loaded.hub.url}")


def open_for(config: Config, raw: bytes) -> EnrolmentBundle:
    """The bundle in a hub's answer, if it is this node's. Raises `CloisterError`.

    The keys that count are those that a person wrote into the configuration.
    """
    from federation.client.enrolment import open_answer, utc_now

    shown = open_answer(raw, config.trust.ring("hub"), utc_now())
    if not set(shown.instruction_keys) <= set(config.trust.hub) or not set(shown.witness_keys) <= set(
        config.trust.witnesses
    ):
        raise UsageFault(
            "the bundle's hub keys are not those pinned in [trust]",
            hint="compare them with the hub's operator by telephone",
        )
    if shown.hub != config.hub.url:
        raise UsageFault("the bundle names another hub than this configuration", hint="see [hub] host and port")
    if shown.site != config.site:
        raise UsageFault(f"the bundle is for the site {shown.site}, and this one is {config.site}")
    return shown


def put(config: Config, bundle: EnrolmentBundle) -> None:
    """Install an opened bundle, and say what an auditor needs to check this node's log."""
    from federation.client.enrolment import install as install_bundle

    def install_it() -> str:
        install_bundle(config.paths.link, bundle)
        return ""

    as_link(config, install_it)
    write_audit_keys(config)


def write_audit_keys(config: Config) -> None:
    """`audit-keys.txt`: what an auditor needs to check this node's log, public."""
    path = config.paths.audit_keys
    with acting_as(config.users.accounts()["core"]):
        audit = read_verify_key(public_path(config.paths.audit_key)).text
    lines = [f"audit {audit}", *(f"witness {key}" for key in config.trust.witnesses)]
    replace_file(path, "\n".join(lines))
    path.chmod(0o644)
