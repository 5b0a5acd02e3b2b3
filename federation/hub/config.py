"""The hub's one configuration file: strict TOML, read once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from federation.control import PublicKey, Site
from mediator.errors import UsageFault
from mediator.terms import is_example_host, is_placeholder

Host = Annotated[str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9.:-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IngressConfig(_Strict):
    """The one port nodes reach. `hosts` are the names and addresses they may call it by, the first in bundles.

    `handshake_s`, `strangers` and `strangers_per_address` are for those that have shown no certificate yet,
    `connections_per_site` for those that have (`federation.hub.listener`).
    """

    listen: Host = "0.0.0.0"  # noqa: S104 - the one thing a hub does in public, and it takes mutual TLS only
    port: int = Field(ge=1, le=65535)
    hosts: list[Host] = Field(min_length=1)
    handshake_s: float = Field(default=5.0, gt=0, le=60)
    strangers: int = Field(default=256, ge=8)
    strangers_per_address: int = Field(default=64, ge=8)
    connections_per_site: int = Field(default=64, ge=8)

    @property
    def url(self) -> str:
        host = self.hosts[0]
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"


class HubTrustConfig(_Strict):
    """Whose permits and revocation lists this hub passes on. Nodes have their own list and decide by that one."""

    committee_keys: list[PublicKey] = Field(min_length=1)


class RunsConfig(_Strict):
    """How runs are conducted.

    `minimum_sites` 0 means all of the order's sites: a federation that silently loses a hospital computes something
    else than what was asked for. A site that is paused or away is waited for up to `patience_s`; then the round goes on
    without it where `minimum_sites` are left, and else the run stops.
    """

    minimum_sites: int = Field(default=0, ge=0)
    round_timeout_s: float = Field(default=21600.0, gt=0)
    patience_s: float = Field(default=86400.0, gt=0)
    poll_s: float = Field(default=0.02, gt=0, le=5)


class HubConfig(_Strict):
    """`hub.toml`."""

    version: Literal[1]
    name: Site
    state_dir: Path
    ingress: IngressConfig
    trust: HubTrustConfig
    runs: RunsConfig = RunsConfig()


def placeholders(config: HubConfig) -> list[tuple[str, str]]:
    """What the example leaves to be changed and nobody has: what is wrong, and what to write."""
    found = []
    if is_placeholder(config.name):
        found.append((f"name is the example's, {config.name}", "write a name for this hub: it goes into certificates"))
    for host in config.ingress.hosts:
        if is_example_host(host):
            mend = "write the names and addresses that nodes reach this hub by"
            found.append((f"ingress.hosts: {host} is the example's", mend))
    if any(is_placeholder(text) for text in config.trust.committee_keys):
        mend = "write the Access Committee's public key: what its .pub file holds"
        found.append(("trust.committee_keys is the example's zeros", mend))
    return found


def load_config(path: Path) -> HubConfig:
    """The configuration in `path`; `state_dir` is relative to the file. Raises `UsageFault`."""
    try:
        plain = tomllib.loads(path.read_text("utf-8"))
        config = HubConfig.model_validate(plain)
    except OSError as error:
        raise UsageFault(
            f"cannot read {path}: {error.strerror}", hint="say where the hub's configuration is: --config FILE"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageFault("the hub's configuration is not TOML") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UsageFault(f"the hub's configuration: unknown key {where}", hint="remove it") from None
        raise UsageFault(f"the hub's configuration: {where}: {first['msg']}") from None
    return config.model_copy(update={"state_dir": (path.parent / config.state_dir).absolute()})
