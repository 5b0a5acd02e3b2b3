"""The site key of a node is destroyed on record: in the audit log before and after, or not at all."""

import json
import sys

import pytest

from mediator.errors import IntegrityBroken, Malformed
from mediator.roles import Role
from mediator.traceability import NO_TRACEABILITY, key_id
from node.cli import main
from node.host.keys import read_raw_key
from node.host.state import prepare_state
from node.ipc.deid_keys import DEID_KEY_RETIRE, KeyRetirement


@pytest.fixture
def cloister(monkeypatch):
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["cloister", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code

    return run


def records(served):
    served.core.export()
    log = [path for path in sorted(served.config.paths.audit.iterdir()) if path.name.endswith(".jsonl")]
    lines = [json.loads(line) for path in log for line in path.read_text().splitlines()]
    return [line for line in lines if line.get("action") == "deid_key_retire"]


def test_a_nodes_site_key_is_destroyed_with_both_records_and_only_then_do_reports_say_no_traceability(
    served, cloister, tmp_path
):
    paths = served.config.paths
    key = read_raw_key(paths.site_key)
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"key": key_id(key), "traceability": "pseudonymous"}))
    retire = ("deid", "key", "retire", "--config", paths.root.parent / "node.toml", "--report", summary, "--yes")
    assert cloister(*retire) == 0
    assert not paths.site_key.exists() and json.loads(summary.read_text())["traceability"] == NO_TRACEABILITY
    told = records(served)
    assert [line["verdict"] for line in told] == ["allowed", "done"]
    assert {(line["object"], line["actor"]) for line in told} == {(f"deid-key/{key_id(key)}", "it_admin.unknown")}
    assert key_id(key) in paths.site_key.with_name("site.key.retired.jsonl").read_text()
    prepare_state(served.config)  # the next start: another key, other pseudonyms
    assert read_raw_key(paths.site_key) != key


def test_while_the_audit_log_cannot_be_written_nothing_is_destroyed(config, cloister, tmp_path):
    key = config.paths.site_key.read_bytes()
    assert cloister("deid", "key", "retire", "--config", config.paths.root.parent / "node.toml", "--yes") == 5
    assert config.paths.site_key.read_bytes() == key
    assert not config.paths.site_key.with_name("site.key.retired.jsonl").exists()


def test_a_site_key_that_went_missing_without_a_record_is_not_made_anew(served):
    served.config.paths.site_key.unlink()
    with pytest.raises(IntegrityBroken):
        prepare_state(served.config)


@pytest.mark.parametrize("key", ["", "../../etc", "Hartog^Wilhelmina", "0" * 17])
def test_what_is_no_key_id_is_not_written_down(served, key):
    client = served.client(Role.IT_ADMIN)
    with pytest.raises(Malformed):
        client.call(DEID_KEY_RETIRE, KeyRetirement(key=key))
    assert records(served) == []
