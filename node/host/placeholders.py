"""What nobody has filled in yet: the example's names, and zeros where a key or a hash belongs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mediator.errors import UsageFault
from mediator.terms import is_example_host, is_placeholder
from node.host.config import NodeConfig

SENTINEL_CURE = "deploy/lib/images.sh cloister-sentinel makes it and prints its digest: write it in [engine] sentinel"


@dataclass(frozen=True)
class Placeholder:
    """What it is about, what stands there, and what to write."""

    what: str
    detail: str
    mend: str


def placeholders(config: NodeConfig) -> Iterator[Placeholder]:
    """Every one in a node's configuration."""
    if is_placeholder(config.site):
        mend = "write the name that permits call this site: site"
        yield Placeholder("site", f"{config.site} is the example's", mend)
    if is_example_host(config.hub.host):
        yield Placeholder("hub address", f"{config.hub.host} is the example's", "write your hub's in [hub] host")
    for purpose in ("committee", "stewards", "hub", "witnesses"):
        if any(is_placeholder(key) for key in getattr(config.trust, purpose)):
            mend = f"write the real one in [trust] {purpose}"
            yield Placeholder(f"trust in {purpose}", "a key of zeros is nobody's", mend)
    for section, what in (("staff", "persons"), ("airlock", "reviewers")):
        if any(is_placeholder(person.public_key) for person in getattr(config, section).persons):
            mend = f"write what their .pub file holds in [{section}] persons"
            yield Placeholder(f"trust in {what}", "a key of zeros is nobody's", mend)
    if is_placeholder(config.engine.sentinel):
        yield Placeholder("sentinel image", "[engine] sentinel is a placeholder of zeros", SENTINEL_CURE)
    for gpu in config.schedule.gpus:
        if is_placeholder(gpu.id.partition("-")[2].replace("-", "")):
            yield Placeholder("GPUs", f"{gpu.id} is the example's", "write what `nvidia-smi -L` names")


def check_filled_in(config: NodeConfig) -> None:
    """Raise `UsageFault` while there is one: what is made from it (keys, certificates, records) would carry it on."""
    for each in placeholders(config):
        raise UsageFault(f"nobody has filled in the configuration: {each.what}: {each.detail}", hint=each.mend)
