"""Help worth reading, for every command there is; and every fault one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import click
import click.testing
import pytest
import typer

from mediator import canonical
from mediator.types import Dtype, TensorSpec
from node.cli import main
from node.cli.app import application, outline
from node.cli.plain_help import summary
from tests.mediator import samples

VECTORS = Path(__file__).parents[2] / "vectors" / "documents"


def commands(at: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, at
    if isinstance(at, click.Group):
        for name, below in at.commands.items():
            yield from commands(below, (*path, name))


ROOT = typer.main.get_command(application())
ALL = list(commands(ROOT))
SHOWN = [(path, command) for path, command in ALL if not command.hidden]


def test_there_is_a_command_for_every_person() -> None:
    paths = {" ".join(path) for path, _ in SHOWN}
    assert {
        "keys new", "check", "audit verify", "permit sign", "permit revocations", "permit show", "job order", "job new",
        "job build", "job test",
        "node init", "node enrol", "node enrol request", "node enrol install", "node serve", "node status",
        "node ingest", "hub events", "hub keys",
        "node dataset list", "node image approve", "node permit list", "node permit accept", "node run list",
        "node job list", "node ledger", "node pause", "node resume", "node canary", "node audit checkpoint",
        "node import", "hub init", "hub serve", "hub status", "hub node approve", "hub node list", "hub node revoke",
        "hub permit publish", "hub revocations publish", "hub run submit", "hub run list", "hub run show",
    } <= paths  # fmt: skip


@pytest.mark.parametrize(("path", "command"), SHOWN, ids=[" ".join(path) or "cloister" for path, _ in SHOWN])
def test_every_command_says_what_it_does_and_what_it_takes(path: tuple[str, ...], command: click.Command) -> None:
    """All of it: no word of a docstring or a description is swallowed, cut, or shown twice."""
    told = _words(click.testing.CliRunner().invoke(ROOT, [*path, "--help"]).output)
    assert command.help and len(command.help.split()) >= 2
    assert _words(command.help) in told
    for parameter in command.params:
        words = getattr(parameter, "help", None)
        assert words and len(words.split()) >= 2, parameter.name
        assert told.count(_words(words)) >= 1, words
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in told
        else:
            metavar = parameter.make_metavar(click.Context(command))
            assert told.count(f"{metavar}{_words(words)}") == 1, metavar
    for name, below in command.commands.items() if isinstance(command, click.Group) else ():
        if not below.hidden:
            assert f"{name}{_words(summary(below))}" in told, name
    assert "\\" not in told  # what markup is escaped by


def _words(text: str) -> str:
    """A text without its line breaks and columns."""
    return "".join(text.split())


def test_the_first_help_is_the_same_with_nothing_imported() -> None:
    told = [
        click.testing.CliRunner().invoke(typer.main.get_command(app), ["--help"]).output
        for app in (application(), outline())
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--help",
        "--version",
        "nod",
        "audit verify --help",
        "node status --help",
        "node image list --help",
        "permit sign --help",
    ],
)
def test_help_loads_nothing_that_it_does_not_show(words: str) -> None:
    loaded = _loaded(words)
    assert {"node.cli.app", "click"} <= loaded
    heavy = {"pydantic", "numpy", "pyarrow", "pydicom", "sqlalchemy", "grpc", "aiohttp", "docker", "torch"}
    assert not loaded & heavy


def _loaded(words: str) -> set[str]:
    """The modules in a process that ran a command line."""
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n'.join(sys.modules)))\n"
        f"sys.argv = ['cloister', *{words.split()!r}]\n"
        "from node.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) or "cloister" for path, _ in ALL])
def test_every_list_and_show_can_be_read_by_a_program(path: tuple[str, ...], command: click.Command) -> None:
    reads = bool(path) and path[-1] in ("list", "show", "status", "verify", "check", "ledger", "canary", "self-test")
    if reads and path != ("node", "permit", "show"):  # which prints nothing but JSON
        assert any("--json" in parameter.opts for parameter in command.params)


# ---- faults


class Done(NamedTuple):
    code: object
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, in this process."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Done:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["cloister", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capfd.readouterr())

    return call


@pytest.mark.parametrize("words", ["", "hub", "config", "node permit"])
def test_whoever_asks_nothing_is_shown_what_there_is_and_told_of_no_fault(run: Callable[..., Done], words: str) -> None:
    done = run(*words.split())
    assert done.code == 2 and done.out == "" and "error" not in done.err.splitlines()[0]
    assert "Commands:" in done.err


def test_a_slip_that_has_choices_is_told_on_one_line(run: Callable[..., Done]) -> None:
    done = run("completion")
    assert done.code == 2 and "bash, zsh, fish" in done.err and len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("nonsense", 2, "nonsense"),
        ("node status --frobnicate", 2, "--frobnicate"),
        ("node status --config absent.toml", 2, "cannot read absent.toml"),
        ("hub run list --config absent.toml", 2, "cannot read absent.toml"),
        ("permit show absent.jws", 2, "absent.jws"),
        ("permit show rubbish", 2, "not a signed document"),
        (f"permit show {VECTORS}/permit-of-an-unknown-version.jws", 2, "version"),
        (f"permit show {VECTORS}/permit-with-an-image-by-tag.jws", 2, "digest"),
        (f"permit show {VECTORS}/permit-with-an-unknown-key.jws", 2, ""),
        (f"permit show {VECTORS}/permit-without-a-signature.jws --key key.pub", 2, ""),
        (f"permit show {VECTORS}/permit.jws --key key.pub", 3, "untrusted_key"),
        ("permit sign rubbish --key key --out out", 2, "not JSON"),
        ("permit sign list.json --key key --out out", 2, "not an object"),
        ("permit sign version-9.json --key key --out out", 2, "version"),
        ("permit sign large.json --key key --out out", 3, "permit_too_large"),
        ("permit sign misordered.json --key key --out out", 3, "tensor_order"),
        ("permit revocations --number 0 --key key --out out", 2, "--number"),
        ("permit revocations --number 1 --permit NO! --key key --out out", 2, "permit"),
        ("permit revocations --number 1 --key open-key --out out", 2, "others than its owner"),
        ("permit revocations --number 1 --key key.pub --out out", 2, "key.pub"),
        ("permit revocations --number 1 --key absent --out out", 2, "absent"),
        ("job order --permit rubbish --run r --image i --site s --rounds 1 --key key --out out", 2, "signed"),
        (f"job order --permit {VECTORS}/permit.jws --run r --image torch:latest --site s --rounds 1 --key key "
         "--out out", 2, "image"),
        (f"job order --permit {VECTORS}/permit.jws --run r --image i --site s --rounds 0 --key key --out out", 2,
         "--rounds"),
        (f"job order --permit {VECTORS}/permit.jws --run r --image i --site s --rounds 1 --key key --out out "
         "--config [", 2, "--config"),
        ("keys new key", 2, "never overwritten"),
        ("audit verify absent --key key.pub", 2, "absent"),
        ("audit verify . --key rubbish", 2, "64 hexadecimal"),
        ("audit verify . --key key.pub", 4, "does not verify"),
        ("audit verify empty --key key.pub --witness rubbish", 2, "witness"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_the_right_exit_code_and_nothing_is_written(
    tmp_path: Path, run: Callable[..., Done], words: str, code: int, says: str
) -> None:
    assert run("keys", "new", "key").code == 0
    (tmp_path / "open-key").write_bytes((tmp_path / "key").read_bytes())
    (tmp_path / "open-key").chmod(0o644)
    (tmp_path / "rubbish").write_bytes(bytes(range(256)))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "version-9.json").write_text('{"kind": "cloister.data-permit", "version": 9}')
    for name, count in (("large", 6000), ("misordered", 12)):
        specs = tuple(TensorSpec(text, (3,), Dtype.F32) for text in sorted(map(str, range(count))))
        (tmp_path / f"{name}.json").write_bytes(canonical.encode(samples.permit(tensors=specs)))
    (tmp_path / "empty").mkdir()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    done = run(*words.split())
    said = done.err.splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert done.code == code and len(errors) == 1 and says in errors[0], done
    assert "Traceback" not in done.err and "internal error" not in done.err
    assert said[said.index(errors[0]) + 1 :] == [line for line in said if line.startswith("hint: ")]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_version_is_told(run: Callable[..., Done]) -> None:
    assert run("--version").out.startswith("cloister ")


def test_check_without_a_node_looks_at_the_installation(run: Callable[..., Done]) -> None:
    done = run("check")
    assert done.code == 0 and "python" in done.out and "packages" in done.out
