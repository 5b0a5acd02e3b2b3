"""What the tests of `cloister deid` share: the command line in this process, a key, files in and files out."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from node.cli import main
from tests.sim.dicom import ct_slice, to_bytes


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cloister(monkeypatch, capfd):
    """The command line in this process; worker processes are real."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["cloister", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Said(stop.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def key(tmp_path) -> Path:
    path = tmp_path / "site.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def plain_slice(**changes):
    """A CT slice that says that nothing is burned in: it needs no reading."""
    dataset = ct_slice()
    dataset.BurnedInAnnotation = "NO"
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def put(folder: Path, name: str, dataset) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dataset if isinstance(dataset, bytes) else to_bytes(dataset))


def options(key: Path, *more: object, profile: str = "eucaim", project: str = "liver", site: str = "alpha"):
    return ("--profile", profile, "--project", project, "--site", site, "--key", key, "--ocr", "off", "--json", *more)


def instances(folder: Path) -> dict[str, pydicom.Dataset]:
    return {str(path.relative_to(folder)): pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))}


def report(folder: Path) -> list[dict]:
    return [json.loads(line) for line in folder.with_name(f"{folder.name}.report.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
