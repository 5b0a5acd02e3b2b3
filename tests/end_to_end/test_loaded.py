"""What each process of a node has loaded after a working day: nothing beyond a short list, and core no way out.

The contracts in `pyproject.toml` speak of imports that can be read in the sources; this is what the interpreter did.
"""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.commands import ENVIRONMENT
from tests.end_to_end.hospital import Hospital
from tests.end_to_end.house import House, Permit
from tests.end_to_end.machine import eventually
from tests.end_to_end.watched import ASKED

pytestmark = pytest.mark.engine
WATCHED = Path(__file__).with_name("watched.py")

OURS = {"cloister", "containers", "durable", "federation", "mediator", "node"}
# what the command line, the configuration, signatures and the sockets between processes need
COMMON = {
    "annotated_types", "cffi", "click", "cryptography", "grpc", "grpc_health", "joserfc", "pydantic", "pydantic_core",
    "pygments", "rfc8785", "rich", "shellingham", "typer", "typing_extensions", "typing_inspection",
}  # fmt: skip
LOADED = {
    "core": {"alembic", "greenlet", "mako", "markupsafe", "numpy", "pyarrow", "sqlalchemy"},
    "broker": {"certifi", "charset_normalizer", "docker", "idna", "requests", "urllib3"},
    "link": {
        "Crypto", "aiohappyeyeballs", "aiohttp", "aiosignal", "annotated_doc", "anyio", "attr", "certifi",
        "charset_normalizer", "fastapi", "flwr", "frozenlist", "google", "h11", "httpcore", "httpx", "idna",
        "iterators", "multidict", "numpy", "packaging", "propcache", "requests", "starlette", "urllib3", "yarl",
    },
    # requests comes with pydicom, which loads it for its own example files where it is there
    "intake": {
        "PIL", "certifi", "charset_normalizer", "gdcm", "idna", "jpeg_ls", "numpy", "openjpeg", "pyarrow", "pydicom",
        "pylibjpeg", "requests", "tqdm", "urllib3",
    },
}  # fmt: skip
# of the interpreter, of Cython and SWIG, and what grpc takes along where the development tools are installed
INTERPRETER = re.compile(r"_.*|sitecustomize|cython_runtime|swig_runtime_data\d*|grpc_tools|watched")


@pytest.fixture(scope="module")
def watched(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hospital, Path]]:
    """The house's first hospital under watch, and the folder of reports."""
    hospital, reports = house.hospitals[0], tmp_path_factory.mktemp("reports")
    for folder in (reports, *reports.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)

    def launch(log: Path, *words: object) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            command = [sys.executable, "-P", str(WATCHED), str(reports), "serve", str(words[-1])]
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", env=dict(ENVIRONMENT),
                start_new_session=True,
            )  # fmt: skip

    hospital.stop()
    hospital.serve(launch)
    try:
        yield hospital, reports
    finally:
        hospital.stop()
        hospital.serve()


@pytest.mark.parametrize("family", ["4", "6"])
def test_the_filter_refuses_an_internet_socket_and_python_ends_of_asking(family: str) -> None:
    """Positive control: C's own `socket` fails with EACCES, Python's never returns."""
    ended = subprocess.run(
        [sys.executable, "-P", str(WATCHED), "-", "socket", family], capture_output=True, text=True, check=False
    )
    assert (ended.stdout.strip(), ended.returncode) == (f"-1 {errno.EACCES}", ASKED)


def test_no_process_loads_more_than_its_list_and_core_opens_no_internet_socket(
    house: House, rogue: Permit, watched: tuple[Hospital, Path]
) -> None:
    hospital, reports = watched
    said = hospital.log.stat().st_size
    before = hospital.dataset_version
    hospital.ingest(patients=4, seed=2)
    hospital.dataset_version = before  # what the house's other permits are about
    eventually(lambda: hospital.json("status")["hub"]["connected"], what="the link's connection")
    run = house.begin("watched", rogue, hospital, rounds=1, misbehave="none")
    history = house.hub.ended(run, within_s=120)
    assert history["state"] == "done", history
    hospital.run("audit", "checkpoint")
    hospital.run("pause")
    hospital.run("resume")
    beyond = {}
    for role, own in LOADED.items():
        names = eventually((reports / role).read_text).split("\n")
        loaded = {name for name in names if not INTERPRETER.fullmatch(name)}
        assert {"mediator", "node"} <= loaded, "the report is of that process"
        beyond[role] = sorted(loaded - OURS - COMMON - own)
    assert not any(beyond.values()), beyond
    assert b"ended with status" not in hospital.log.read_bytes()[said:], "core asked for an Internet socket"
