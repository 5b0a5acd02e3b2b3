"""Where the demo works, and what it never deletes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.demo.failures import DemoFailed
from deploy.demo.workplace import FALLBACK, MARKER, SITES, Workplace, choose_root
from deploy.driver.commands import as_user


def test_a_folder_that_is_no_demos_is_never_cleared(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("chapter one")
    with pytest.raises(DemoFailed) as refused:
        Workplace(tmp_path, as_root=False).clear_and_make()
    assert refused.value.code == 2
    assert precious.read_text() == "chapter one"
    assert list(tmp_path.iterdir()) == [precious]


def test_a_second_run_starts_clean(tmp_path: Path) -> None:
    root = tmp_path / "work"
    first = Workplace(root, as_root=False)
    first.clear_and_make()
    (first.hub / "hub.db").write_text("old")
    (root / "demo-report.json").write_text("{}")
    first.release()
    Workplace(root, as_root=False).clear_and_make()
    assert not (first.hub / "hub.db").exists()
    assert not (root / "demo-report.json").exists()


def test_two_demos_in_one_folder_do_not_tear_down_each_other(tmp_path: Path) -> None:
    first = Workplace(tmp_path / "work", as_root=False)
    first.clear_and_make()
    (first.hub / "hub.db").write_text("mine")
    with pytest.raises(DemoFailed) as refused:
        Workplace(tmp_path / "work", as_root=False).clear_and_make()
    assert refused.value.code == 5
    assert (first.hub / "hub.db").read_text() == "mine"


def test_a_link_in_the_work_folder_is_unlinked_and_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    root = tmp_path / "work"
    root.mkdir()
    (root / MARKER).touch()
    (root / "hub").symlink_to(elsewhere)
    Workplace(root, as_root=False).clear_and_make()
    assert (elsewhere / "kept").exists()


def test_originals_are_the_only_folder_left_out_of_the_search(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "work", as_root=False)
    place.clear_and_make()
    folders = {path for path in place.root.iterdir() if path.is_dir()}
    assert set(place.search_roots()) == folders - {place.source}


def test_as_root_no_two_processes_share_a_user() -> None:
    place = Workplace(Path("/nowhere"), as_root=True, uid_base=61000)
    accounts = [place.hub_account, place.committee_account, place.researcher_account]
    accounts += [place.node_account(site, role) for site in SITES for role in ("core", "intake", "broker", "link")]
    assert len({account.uid for account in accounts}) == len(accounts) == 15
    assert all(account.uid and account.uid >= 61000 for account in accounts)


def test_as_a_plain_user_nobody_changes_their_uid() -> None:
    place = Workplace(Path("/nowhere"), as_root=False)
    assert place.hub_account.uid is None
    assert as_user(place.hub_account.uid) == {}


def test_a_clone_that_other_users_cannot_enter_works_in_a_folder_they_can(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    root, why = choose_root(None, tmp_path, as_root=True)
    assert root == FALLBACK
    assert str(tmp_path) in why or "/pytest" in why
    assert choose_root(None, tmp_path, as_root=False) == (tmp_path / "demo-work", "")


def test_a_folder_asked_for_by_name_is_never_silently_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(DemoFailed) as refused:
        choose_root(tmp_path / "work", Path("/"), as_root=True)
    assert refused.value.code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand folders over")
def test_the_committees_folder_is_closed_to_the_hub(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "work", as_root=True)
    place.clear_and_make()
    folder = place.committee.stat()
    assert (folder.st_uid, folder.st_mode & 0o777) == (place.committee_account.uid, 0o700)
    assert folder.st_uid != place.hub.stat().st_uid
