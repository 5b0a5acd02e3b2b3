"""An image on a terminal: what a person should know before saying yes to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from mediator.images import ImageFacts, Package
from node.cli.it.image_differences import Difference
from node.cli.output import Rows, data, table
from node.ipc.images import ImageLine


def print_image(
    line: ImageLine, facts: ImageFacts, unfit: Sequence[str], before: ImageFacts | None, found: Sequence[Difference]
) -> None:
    """Everything, on stdout. Texts of the image are printable already (`mediator.images.printable`)."""
    for title, value in _summary(line, facts):
        _line(title, value)
    data.print()
    table(("layer", "unpacked"), ((each.diff_id, size(each.size_bytes)) for each in facts.layers)).print()
    for step in filter(None, facts.parsed.history):
        _line("  built by", step)
    data.print()
    for kind, group in groupby(facts.packages, lambda each: each.kind):
        _packages(kind, list(group))
    for bill in facts.sboms:
        _line("bill of materials", f"{bill.format} {bill.format_version}, {bill.packages} packages, {bill.where}")
    if not facts.sboms:
        _line("bill of materials", "none came with it")
    for name in facts.unread:
        _line("not read", name)
    data.print()
    if before is not None:
        _line("compared with", f"{before.image}, approved: {len(found)} differences")
        if found:
            changes(found).print()
    else:
        _line("compared with", "nothing: no other image was approved")
    for reason in unfit:
        _line("cannot run here", reason)


def listed(items: Iterable[ImageLine]) -> Rows:
    """One image on one line, its digest whole: it is what every other command takes."""
    return table(("image", "state", "since", "by", "lineage", "size", "packages", "note"), map(_line_of, items))


def _line_of(item: ImageLine) -> tuple[object, ...]:
    since = item.withdrawn or item.approved or item.added
    unpacked = None if item.size_bytes is None else size(item.size_bytes)
    packages = None if item.size_bytes is None else item.packages
    return (
        item.image, item.state, since and since.date(), _who(item), item.lineage, unpacked, packages, item.note
    )  # fmt: skip


def changes(found: Iterable[Difference]) -> Rows:
    """What was there, and what is there instead."""
    return table(("what", "before", "after"), ((each.what, each.before, each.after) for each in found))


def size(size_bytes: int) -> str:
    """Bytes for people, in powers of ten as disks are sold."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.2f} MB"


# said on another line of the view, whole
_ELSEWHERE = frozenset({"system", "architecture", "created", "layers", "steps"})


def _who(line: ImageLine) -> str | None:
    return line.withdrawn_by if line.withdrawn else line.approved_by


def _summary(line: ImageLine, facts: ImageFacts) -> list[tuple[str, str]]:
    config = facts.parsed
    who = f"{line.state} by {_who(line)}" if _who(line) else line.state
    return [
        ("image", facts.image),
        ("manifest", facts.manifest or "none"),
        ("state", who),
        ("lineage", facts.lineage),
        ("came as", f"{facts.origin}: {', '.join(facts.names) or 'without a name'}"),
        ("made for", f"{config.system}/{config.architecture}, {config.created or 'no date'}"),
        *((name, "none") for name in ("entry point", "command") if name not in config.settings),
        *(("user", "root") for _ in range("user" not in config.settings)),
        *((name, each.shown or '""') for name, each in config.settings.items() if name not in _ELSEWHERE),
        ("runs under", "the node's own user, whatever stands here"),
        ("unpacked", f"{size(facts.size_bytes)} in {len(facts.layers)} layers"),
        ("packages", f"{len(facts.packages)}, as the image's own package managers list them"),
    ]


def _packages(kind: str, packages: list[Package]) -> None:
    _line(f"{kind} ({len(packages)})", "  ".join(f"{each.name} {each.version}" for each in packages))


def _line(title: str, value: str) -> None:
    data.print(f"{title}: {value}")
