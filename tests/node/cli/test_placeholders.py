"""Examples and placeholders are refused where something would be made of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mediator.terms import is_example_host, is_placeholder, ungrantable
from node.cli.findings import finding
from node.host.config import load_config
from node.host.placeholders import placeholders
from tests.end_to_end.commands import CLOISTER, ENVIRONMENT
from tests.mediator import samples
from tests.node.host.minimal import MINIMAL

DEPLOY = Path(__file__).parents[3] / "deploy"


def asked(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CLOISTER), *words], capture_output=True, text=True, timeout=60, env=dict(ENVIRONMENT), check=False
    )


@pytest.mark.parametrize("whose", ["node", "hub"])
def test_the_example_makes_no_node_and_no_hub(tmp_path: Path, whose: str) -> None:
    file = tmp_path / f"{whose}.toml"
    text = (DEPLOY / f"{whose}.example.toml").read_text()
    file.write_text(text.replace("/var/lib/cloister/node", str(tmp_path / "state")))
    done = asked(whose, "init", "--config", str(file))
    assert done.returncode == 2 and "example" in done.stderr and "hint:" in done.stderr, done
    assert [each.name for each in tmp_path.iterdir()] == [file.name], "nothing was made"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"north"', '"example-hospital"', "site"), ('"hub.example"', '"hub.example.org"', "hub address"),
        ("1" * 64, "0" * 64, "sentinel image"),
        ("[engine]", f'[trust]\nhub = ["{"0" * 64}"]\n[engine]', "trust in hub"),
        ("[engine]", f'[staff]\npersons = [{{subject = "a.b", public_key = "{"0" * 64}"}}]\n[engine]',
         "trust in persons"),
        ("[engine]", f'[airlock]\npersons = [{{subject = "a.b", public_key = "{"0" * 64}"}}]\n[engine]',
         "trust in reviewers"),
    ],
)  # fmt: skip
def test_each_placeholder_is_found_and_named(tmp_path: Path, old: str, new: str, what: str) -> None:
    (tmp_path / "node.toml").write_text(MINIMAL.replace(old, new))
    [found] = placeholders(load_config(tmp_path / "node.toml"))
    assert found.what == what and finding(found.what, "missing", found.detail, found.mend)
    (tmp_path / "node.toml").write_text(MINIMAL)
    assert list(placeholders(load_config(tmp_path / "node.toml"))) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"project": "your-project"}, "project"), ({"project": "example-project"}, "project"),
     ({"purpose": "say here what for"}, "purpose")],
)  # fmt: skip
def test_a_permit_with_a_placeholder_is_not_to_be_signed(changes: dict[str, str], where: str) -> None:
    permit = samples.permit(**changes)
    found = [reason.detail for reason in ungrantable(permit, permit.issuer, permit.not_before)]
    assert f"{where} is a placeholder" in found


def test_a_site_of_the_examples_is_not_granted_anything() -> None:
    from mediator.types import SiteDatasets

    permit = samples.permit(datasets=(SiteDatasets("example-hospital", ("sha256:" + "cd" * 32,)),))
    found = [reason.detail for reason in ungrantable(permit, permit.issuer, permit.not_before)]
    assert "the name of site 1 is a placeholder" in found


def test_what_is_nobodys_and_what_is_somebodys() -> None:
    assert all(map(is_placeholder, ("example-hub", "0" * 64, "sha256:" + "0" * 64, "", "your-name")))
    assert not any(map(is_placeholder, ("north", "exemplary", "1" * 64)))
    assert all(map(is_example_host, ("hub.example.org", "example.com", "A.EXAMPLE.NET")))
    assert not any(map(is_example_host, ("hub.example", "hub.notexample.org", "127.0.0.1")))
