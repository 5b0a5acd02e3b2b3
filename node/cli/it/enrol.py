"""`cloister node enrol`: two files change hands, and the node is known to the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import UsageFault
from node.cli.admin import load
from node.cli.files import read_bytes, replace_file, write_new
from node.cli.it.run_as import run_as
from node.cli.options import Json, NodeConfig, Out
from node.cli.output import say, show
from node.host.accounts import acting_as
from node.host.keys import public_path, read_verify_key

if TYPE_CHECKING:
    from node.host.config import NodeConfig as Config

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
    paths = loaded.paths
    with acting_as(loaded.users.accounts()["core"]):  # its folder, and what lies in it is its choice
        release, audit = read_verify_key(public_path(paths.release_key)), read_verify_key(public_path(paths.audit_key))

    def make() -> str:
        made = make_request(paths.link, loaded.site, release_key=release, audit_key=audit, new_keys=new_keys)
        return made.decode("utf-8")

    text = run_as(_link_user(loaded), make)
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
    """Install the hub's answer. It is refused if the hub's keys are not those pinned in this node's [trust]."""
    from federation.client.enrolment import install as install_bundle
    from federation.control import EnrolmentBundle, decode

    loaded = load(config)
    raw = read_bytes(bundle, limit=1 << 20)
    shown = decode(EnrolmentBundle, raw)
    # the bundle came by mail: the keys that count are those a person wrote into the configuration
    if not set(shown.instruction_keys) <= set(loaded.trust.hub) or not set(shown.witness_keys) <= set(
        loaded.trust.witnesses
    ):
        raise UsageFault(
            "the bundle's hub keys are not those pinned in [trust]",
            hint="compare them with the hub's operator by telephone",
        )
    if shown.hub != loaded.hub.url:
        raise UsageFault("the bundle names another hub than this configuration", hint="see [hub] host and port")

    def put() -> str:
        return install_bundle(loaded.paths.link, raw).site

    run_as(_link_user(loaded), put)
    write_audit_keys(loaded)
    say(f"enrolled at {loaded.hub.url}")


def audit_keys_text(config: Config) -> str:
    """What an auditor needs to check this node's log: its audit key and its witnesses', public."""
    with acting_as(config.users.accounts()["core"]):
        audit = read_verify_key(public_path(config.paths.audit_key)).text
    return "\n".join([f"audit {audit}", *(f"witness {key}" for key in config.trust.witnesses)])


def write_audit_keys(config: Config) -> None:
    """`audit-keys.txt`, for whoever looks."""
    path = config.paths.audit_keys
    replace_file(path, audit_keys_text(config))
    path.chmod(0o644)


def _link_user(config: Config) -> tuple[int, int] | None:
    link = config.users.accounts()["link"]
    return (link.uid, link.gid) if config.users.separate and os.geteuid() == 0 else None
