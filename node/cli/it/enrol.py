"""`cloister node enrol`: six words by telephone, or two files that change hands, and the node is known to the hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mediator.errors import CloisterError, Malformed, UsageFault
from node.cli.admin import load
from node.cli.files import check_new, read_bytes, replace_file, write_new
from node.cli.it.link_folder import as_link, check_user, node_keys
from node.cli.options import Json, NodeConfig, Out
from node.cli.output import say, show
from node.host.accounts import acting_as
from node.host.keys import public_path, read_verify_key

if TYPE_CHECKING:
    from federation.client.hand_in import Offer
    from federation.control import EnrolmentBundle
    from node.host.config import NodeConfig as Config

app = typer.Typer()

NewKeys = Annotated[bool, typer.Option("--new-keys", help="with new keys for the link, to be enrolled anew")]


@app.callback(invoke_without_command=True)
def enrol(
    context: typer.Context,
    config: NodeConfig,
    new_keys: NewKeys = False,
    wait: Annotated[float, typer.Option("--wait", help="seconds to wait for the hub's operator", min=0)] = 1800.0,
    as_json: Json = False,
) -> None:
    """Enrol at the hub: shows six words, to be read to the hub's operator by telephone, and waits until they are typed.

    It needs the hub's port and nothing else. Where the port cannot be reached from here, the subcommands do it by two
    files that a person carries.
    """
    if context.invoked_subcommand is not None:
        return
    loaded = load(config)
    _check_not_enrolled(loaded, new_keys=new_keys)
    offer = _make_offer(loaded, new_keys=new_keys)
    if as_json:
        sys.stdout.write(json.dumps({"words": offer.words}) + "\n")
        sys.stdout.flush()
    say("read these six words to the hub's operator, by telephone:")
    say("")
    say(f"    {offer.words}")
    say("")
    say(f"the operator types them at `cloister hub node approve --site {loaded.site}`; waiting for {loaded.hub.url}")
    bundle = open_for(loaded, _wait_for_answer(loaded, offer, wait))
    put(loaded, bundle)
    ends = _ends(bundle)
    say(f"enrolled at {loaded.hub.url}; the certificate is renewed by itself, this one ends {ends[:10]}")
    _try_out(loaded)
    if as_json:
        answer = {"site": bundle.site, "hub": bundle.hub, "certificate_expires": ends}
        sys.stdout.write(json.dumps(answer) + "\n")


def _check_not_enrolled(config: Config, *, new_keys: bool) -> None:
    from federation.client.enrolment import is_enrolled

    folder = config.paths.link
    if as_link(config, lambda: "yes" if is_enrolled(folder) else "") and not new_keys:
        raise UsageFault(
            "this node is enrolled",
            hint="to enrol it anew, after the hub has revoked it: cloister node enrol --new-keys",
        )


def _make_offer(config: Config, *, new_keys: bool) -> Offer:
    from federation.client.enrolment import make_request
    from federation.client.hand_in import Offer

    release, audit = node_keys(config)
    folder, trust = config.paths.link, config.trust
    if not trust.hub or not trust.witnesses:
        raise UsageFault(
            "this node's configuration trusts no hub yet",
            hint="write the hub's two public keys, as `cloister hub init` printed them, into its trust section:"
            " hub and witnesses",
        )

    def make() -> str:
        made = make_request(folder, config.site, release_key=release, audit_key=audit, new_keys=new_keys)
        return made.decode("utf-8")

    return Offer.of(as_link(config, make).encode("utf-8"), list(trust.hub), list(trust.witnesses))


def _wait_for_answer(config: Config, offer: Offer, wait_s: float) -> bytes:
    """As the link's own user: what a stranger answers is read by nobody who may do more."""
    import asyncio

    from federation.client.hand_in import hand_in

    def wait() -> str:
        return asyncio.run(hand_in(config.hub.url, offer, wait_s, say)).decode("utf-8")

    return as_link(config, wait).encode("utf-8")


def _try_out(config: Config) -> None:
    """Whether the hub lets this node in, with what was just installed."""
    import asyncio

    from federation.client.hand_in import knock

    try:
        as_link(config, lambda: asyncio.run(knock(config.paths.link)))
    except CloisterError as error:
        say(f"the hub did not let this node in yet ({error.message}); the link tries again by itself")
        return
    say("the hub lets this node in; a running node goes on with it by itself")


@app.command("request")
def request(
    config: NodeConfig,
    out: Out,
    new_keys: NewKeys = False,
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


def _ends(bundle: EnrolmentBundle) -> str:
    from federation.pki import parse_certificate
    from mediator.canonical import print_time

    return print_time(parse_certificate(bundle.certificate).not_valid_after_utc)


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
