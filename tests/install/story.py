"""The life of an installation, told on real machines: from a bare server to the last file of it gone.

A hub and a hospital's node, each a machine of its own. Nothing is on the node's network while it is installed; then a
cable is laid between the two. Whatever a step asserts is what its operator would look at.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo import permits
from deploy.demo.images import archive, untrained_model
from tests.containers.bench import ENGINE_URL, image_id
from tests.end_to_end.machine import eventually
from tests.install.files import changes
from tests.install.installed import INSTALLER, PORT, Hub, Node
from tests.install.machine import Machine
from tests.install.network import join
from tests.install.people import People
from tests.install.releases import Workshop, changed_byte
from tests.install.roots import System
from tests.install.watch import Watch
from tests.sim.cohort import write_cohort

JOB = "cloister-job-torch"
SITE = "story-hospital"
FIRST, NEXT, BROKEN, JOBLESS = "0.2.0", "0.2.1", "0.2.2", "0.2.3"
# how long is waited for what comes at once: somebody else may want this machine too
PATIENCE_S = 300.0
PATIENTS = 16
# the hospital's images, the paper of the enrolment, the other machine's address
OWN = ("/srv", "/root/", "/etc/hosts")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


@dataclass
class Story:
    """One system's story; `figures` is what it measured so far."""

    system: System
    workshop: Workshop
    folder: Path
    jobs: bool = True
    short: bool = False
    figures: dict[str, Any] = field(default_factory=dict)
    # after each chapter: what it measured is kept, whatever comes after it
    save: Callable[[], None] = lambda: None
    bundles: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tag = f"{self.system.suite}-{os.getpid()}"
        self.hub = Hub(Machine(f"hub-{tag}", self.system))
        self.node = Node(Machine(f"node-{tag}", self.system), SITE)
        self.people = People(self.folder / "desk")

    # ---------------------------------------------------------------- the chapters, in order

    def tell(self) -> None:
        chapters: list[Callable[[], None]] = [
            self.boot, self.see_the_engine, self.refuse_bad_bundles, self.interrupt, self.install, self.look_at_units,
            self.enrol, self.first_round, self.reboot, self.upgrade, self.refuse_downgrade, self.break_an_upgrade,
            self.lose_the_jobs, self.roll_back, self.uninstall,
        ]  # fmt: skip
        if self.short:  # what a test of the installer's own parts shows as well
            left_out = (self.interrupt, self.refuse_downgrade, self.lose_the_jobs)
            chapters = [each for each in chapters if each not in left_out]
        try:
            for chapter in chapters:
                began = time.monotonic()
                chapter()
                say(f"{self.system.name}: {chapter.__name__} {time.monotonic() - began:.1f} s")
                self.save()
        except BaseException:
            for each in (self.hub, self.node):
                if each.machine.leader():
                    say(f"---- {each.machine.name}\n{each.journal()}")
            raise
        finally:
            self.hub.machine.end()
            self.node.machine.end()

    def boot(self) -> None:
        self.people.make_keys()
        self.figures["boot_s"] = [round(each.machine.start(), 1) for each in (self.hub, self.node)]
        for each in (self.hub, self.node):
            each.hand(self.workshop.public_key)
            # names only, no way between them: what the node's units allow is looked up while they are made
            with each.machine.path("/etc/hosts").open("a") as file:
                file.write(f"10.77.0.1 {self.hub.machine.name}\n10.77.0.2 {self.node.machine.name}\n")
        self.before = {each.role: changes(each.machine) for each in (self.hub, self.node)}

    def see_the_engine(self) -> None:
        """Where the system's engine names images otherwise than we do, the check says so, and what cures it does."""
        looked = self.node.machine.run(self._installer(self.node), "node", "--check", "--json", check=False)
        engine = next(each for each in json.loads(looked.stdout) if each["what"] == "engine")
        if engine["state"] == "ok":
            return
        assert looked.returncode == 5 and "/etc/docker/daemon.json" in engine["cure"], engine
        cure = re.search(r"write (\{.*\}) to (\S+), and restart docker", engine["cure"])
        assert cure, engine["cure"]
        self.node.machine.write(cure.group(2), cure.group(1))
        self.node.machine.run("systemctl", "restart", "docker")
        say(f"{self.system.name}: {engine['detail']}: cured as the check says")
        self.figures["engine"] = f"{engine['detail']}: refused; cured as the check says"

    def refuse_bad_bundles(self) -> None:
        """One bit turned, a stranger's key: a clear line, and not a file changed."""
        bad: list[tuple[Path, str | None, int]] = [
            (changed_byte(self.bundles[FIRST], self.folder), "/mnt/release.key.pub", 4)
        ]
        if not self.short:
            bad.append((self.bundles[FIRST], None, 4))
        for bundle, key, code in bad:
            words = ("--release-key", key) if key else ()
            inside = self.node.hand(bundle)
            done = self.node.machine.run(
                self._installer(self.node), "node", "--bundle", inside, *words, *self._node_answers(), check=False
            )
            assert done.returncode == code and "error: " in done.stderr and "Traceback" not in done.stderr, done
            self._unchanged(self.node)
            (self.node.machine.folder / "shared" / bundle.name).unlink()
            if bundle not in self.bundles.values():
                bundle.unlink()

    def interrupt(self) -> None:
        """The power goes while the packages are put in place; the next run takes back what was begun, and installs."""
        bundle = self.node.hand(self.bundles[FIRST])
        words = " ".join(
            [self._installer(self.node), "node", "--bundle", bundle, "--release-key", "/mnt/release.key.pub",
             *self._node_answers()]
        )  # fmt: skip
        self.node.machine.shell(f"nohup {words} >/root/interrupted.log 2>&1 </dev/null & sleep 0.1")
        staged = self.node.machine.path(f"/opt/cloister/{FIRST}")
        eventually(staged.exists, within_s=PATIENCE_S, what="the installer's beginning")
        time.sleep(3)
        self.node.machine.cut_power()
        self.node.machine.start()
        assert self.node.units() == [], "nothing of ours was to run yet"
        self.node.machine.run("rm", "-f", "/root/interrupted.log")

    def install(self) -> None:
        for each, answers in ((self.hub, self._hub_answers()), (self.node, None)):
            bundle = each.hand(self.bundles[FIRST])
            began = time.monotonic()
            done = each.machine.run(
                self._installer(each), each.role, "--bundle", bundle, "--release-key", "/mnt/release.key.pub",
                *(answers or self._node_answers(hub_known=True)), within_s=900,
            )  # fmt: skip
            self.figures["install_s" if each.role == "node" else "install_hub_s"] = round(time.monotonic() - began, 1)
            assert "the story's release key" in done.stderr + done.stdout, "it says by whom the bundle was signed"
            eventually(each.active, within_s=PATIENCE_S, what=f"the {each.role}'s services")
        links = self.node.machine.run("ip", "-o", "link").stdout
        assert "default" not in self.node.machine.run("ip", "route").stdout and "cable0" not in links
        self.figures["offline_ok"] = True
        if self.short:
            return
        again = self.node.machine.run(
            INSTALLER, "node", "--bundle", "/mnt/" + self.bundles[FIRST].name, "--release-key", "/mnt/release.key.pub"
        )
        assert "nothing was changed" in again.stderr + again.stdout, "a second run finds everything in place"

    def look_at_units(self) -> None:
        self.figures["security"] = {**self.node.exposure(), **self.hub.exposure()}
        for unit, exposure in self.figures["security"].items():
            say(f"{self.system.name}: systemd-analyze security {unit}: {exposure}")
            allowed = 4.0 if unit.startswith(("cloister-broker", "cloister-intake")) else 2.0
            assert exposure <= allowed, f"{unit}: exposure {exposure}, at most {allowed}"
        assert {"cloister-core.service", "cloister-hub.service"} <= set(self.figures["security"])
        for each in (self.node, self.hub):
            world = each.machine.shell(
                "find /opt/cloister /etc/cloister /var/lib/cloister -xdev -perm -0002 ! -type l ! -type s", check=False
            ).stdout
            assert world == "", f"writable by everybody: {world[:500]}"
        # containerd has a port of its own on the loopback
        listening = self.node.machine.shell(
            """cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == "0A" && $2 !~ /^0100007F:/ {print $2}'"""
        ).stdout
        assert listening == "", f"a node listens on no port: {listening}"

    def enrol(self) -> None:
        join(self.hub.machine, self.node.machine)
        self.figures["enrol_s"] = round(self.node.enrol(self.hub), 1)

    def first_round(self) -> None:
        revocations = self.hub.hand(self.people.revocation_list())
        self.hub.run("revocations", "publish", revocations)
        write_cohort(self.node.machine.path("/srv/pacs"), SITE, PATIENTS, 1)
        self.node.machine.shell("chown -R cloister-intake /srv/pacs")
        taken = self.node.run(
            "ingest", "/srv/pacs", "--project", permits.PROJECT, "--clinical", "clinical.csv",
            "--column", "lesion=0:1", "--test-fraction", "0.4", "--json",
        )  # fmt: skip
        self.dataset = json.loads(taken.stdout)["dataset_version"]
        if self.jobs:
            self._permit()
            self.figures["first_round_s"] = self._round("first", rounds=1)

    def reboot(self) -> None:
        """Both, one after the other; the cable is laid again, as it would have stayed."""
        self.figures["reboot_s"] = [round(each.machine.reboot(), 1) for each in (self.hub, self.node)]
        join(self.hub.machine, self.node.machine)
        for each in (self.hub, self.node):
            eventually(each.active, within_s=PATIENCE_S, what=f"the {each.role}'s services after a reboot")
        eventually(self.node.connected, within_s=PATIENCE_S, what="the connection after a reboot")
        if self.jobs:
            self._round("after-reboot", rounds=1)
        self.figures["reboot_ok"] = True

    def upgrade(self) -> None:
        """Hub first, then the node while a run goes on: two versions work together, and no round is lost."""
        if not self.short:
            self._upgrade(self.hub, NEXT)
            eventually(self.node.connected, within_s=PATIENCE_S, what="a node of the version before at the hub")
        began = time.monotonic()
        with Watch(self.node.machine) as watch, ThreadPoolExecutor() as pool:
            upgrading = pool.submit(self._upgrade, self.node, NEXT, "--wait-for-jobs", "0")
            if self.jobs:
                # a run begins when nearly everything is staged, and nobody waits for its long rounds: the node computes
                # when it is stopped
                staged = self.node.machine.path(f"/opt/cloister/{NEXT}/venv/bin/cloister")
                eventually(lambda: staged.exists() or upgrading.done(), within_s=900, what="the staging")
                self._submit("over-an-upgrade", rounds=3, epochs=20)
            upgrading.result()
        self.figures["upgrade_s"], self.figures["upgrade_gap_s"] = (
            round(time.monotonic() - began, 1), round(watch.gap_s, 1),
        )  # fmt: skip
        assert self.node.version() == NEXT
        eventually(self.node.connected, within_s=PATIENCE_S, what="the connection after the upgrade")
        if self.jobs:
            assert self.hub.ended("over-an-upgrade", within_s=2 * PATIENCE_S)["state"] == "done"
            mine = [line for line in self.node.json("job", "list") if line["run"] == "over-an-upgrade"]
            done = {(line["round"], line["kind"]) for line in mine if line["state"] in ("released", "delivered")}
            assert done == {(line["round"], line["kind"]) for line in mine} and {1, 2, 3} <= {each[0] for each in done}
            self.figures["over_upgrade"] = {"tasks": len(done), "asked_again": len(mine) - len(done)}
            again = self.figures["over_upgrade"]["asked_again"]
            say(f"{self.system.name}: {len(done)} tasks over the upgrade, {again} asked again, none lost")

    def refuse_downgrade(self) -> None:
        bundle = self.node.hand(self.bundles[FIRST])
        done = self._try_upgrade(self.node, bundle)
        assert done.returncode == 3 and "error: " in done.stderr, done
        assert self.node.version() == NEXT and self.node.active()

    def break_an_upgrade(self) -> None:
        bundle = self.node.hand(self.bundles[BROKEN])
        with Watch(self.node.machine) as watch:
            done = self._try_upgrade(self.node, bundle)
        assert done.returncode not in (0, 1) and "error: " in done.stderr, done
        self.figures["broken_upgrade_gap_s"] = round(watch.gap_s, 1)
        self._as_before()
        self.figures["broken_upgrade_ok"] = True

    def lose_the_jobs(self) -> None:
        """A release whose services start, answer and hold, and whose jobs do not: the job that is tried finds it."""
        done = self._try_upgrade(self.node, self.node.hand(self.bundles[JOBLESS]))
        assert done.returncode not in (0, 1) and "a job of nobody's did not end as it must" in done.stderr, done
        self._as_before()
        self.node.run("self-test")
        tried = [(line["action"], line["verdict"]) for line in self._records() if line["action"] == "self_test"]
        assert tried[-2:] == [("self_test", "failed"), ("self_test", "done")], tried
        self.figures["jobless_upgrade_ok"] = True

    def roll_back(self) -> None:
        began = time.monotonic()
        self.node.machine.run(INSTALLER, "rollback", within_s=900)
        self.figures["rollback_s"] = round(time.monotonic() - began, 1)
        assert self.node.version() == FIRST
        eventually(self.node.connected, within_s=PATIENCE_S, what="the connection after the rollback")
        versions = self.node.run("dataset", "list").stdout
        assert self.dataset[:12] in versions, "what was recorded since is known to the version before"
        if self.jobs:
            runs = {line["run"] for line in self.node.json("ledger")}
            assert {"first", "after-reboot", "over-an-upgrade"} <= runs, "nor did it forget what was spent"
            self._round("after-rollback", rounds=1)

    def uninstall(self) -> None:
        self.node.machine.run(INSTALLER, "uninstall", "--destroy-data", "--yes", within_s=900)
        self.hub.machine.run(INSTALLER, "uninstall", "--keep-data", "--yes", within_s=900)
        left = {each.role: self._left(each) for each in (self.node, self.hub)}
        record = [path for path in left["node"] if path.startswith("/var/log/cloister-destruction-")]
        assert len(record) == 1, "what was destroyed, when, and on whose word"
        self.figures["left_behind"] = [path for path in left["node"] if path not in record]
        self.figures["left_behind_keep_data"] = sorted({"/".join(path.split("/")[:5]) for path in left["hub"]})
        for each in (self.node, self.hub):
            assert each.units() == []
            assert each.machine.shell("ps -eo args | grep -c '^/opt/[c]loister'", check=False).stdout.strip() == "0"

    # ---------------------------------------------------------------- what the chapters are made of

    def _installer(self, each: Hub | Node) -> str:
        bundle = each.hand(self.bundles[FIRST])
        return each.unpacked(bundle)

    def _hub_answers(self) -> list[str]:
        return ["--name", "story-hub", "--host", self.hub.machine.name, "--port", str(PORT), "--committee-key",
                self.people.public("committee"), "--yes"]  # fmt: skip

    def _node_answers(self, *, hub_known: bool = False) -> list[str]:
        answers = ["--site", SITE, "--hub", f"{self.hub.machine.name}:{PORT}", "--committee-key",
                   self.people.public("committee"), "--steward-key", self.people.public("steward"), "--source-root",
                   "/srv/pacs", "--yes"]  # fmt: skip
        if not hub_known:
            return answers
        return [*answers, "--hub-key", self.hub.public_key("instruction"), "--witness-key",
                self.hub.public_key("witness")]  # fmt: skip

    def _unchanged(self, each: Hub | Node) -> None:
        now, before = changes(each.machine), self.before[each.role]
        assert now == before, {path: now.get(path) for path in {*now, *before} if now.get(path) != before.get(path)}

    def _left(self, each: Hub | Node) -> list[str]:
        """What is otherwise than before the installation, without what the story itself laid down there."""
        before = self.before[each.role]
        now = {path: entry for path, entry in changes(each.machine).items() if not path.startswith(OWN)}
        return sorted(path for path, entry in now.items() if before.get(path) != entry)

    def _as_before(self) -> None:
        assert self.node.version() == NEXT, "it goes back by itself"
        eventually(self.node.active, within_s=PATIENCE_S, what="the version before")
        eventually(self.node.connected, within_s=PATIENCE_S, what="the connection of the version before")

    def _records(self) -> list[dict[str, Any]]:
        """What the node's log holds so far."""
        self.node.run("audit", "checkpoint")
        folder = self.node.machine.path("/var/lib/cloister/node/audit")
        lines = [line for file in sorted(folder.rglob("*.jsonl")) for line in file.read_text().splitlines()]
        return [plain for line in lines if "action" in (plain := json.loads(line))]

    def _try_upgrade(self, each: Hub | Node, bundle: str, *words: str) -> Any:
        return each.machine.run(
            each.unpacked(bundle), "upgrade", "--bundle", bundle, "--release-key", "/mnt/release.key.pub", *words,
            check=False, within_s=1200,
        )  # fmt: skip

    def _upgrade(self, each: Hub | Node, version: str, *words: str) -> None:
        done = self._try_upgrade(each, each.hand(self.bundles[version]), *words)
        assert done.returncode == 0, done.stderr[-3000:]
        assert each.version() == version and each.active()

    def _permit(self) -> None:
        """The committee's permit, the hospital's yes to it and to the image."""
        os.environ.setdefault("DOCKER_HOST", ENGINE_URL)
        model = untrained_model(image_id(JOB), self.folder)
        tensors = json.loads((self.folder / "tensors.json").read_text())
        images = archive([image_id(JOB)], self.node.machine.folder / "shared" / "images.tar")
        self.node.run("image", "add", "/mnt/images.tar")
        images.unlink()
        self.node.run("image", "approve", image_id(JOB), "--by", "it.story", "--yes")
        self.permit = self.people.permit("story", image_id(JOB), tensors, {SITE: self.dataset})
        self.hub.run("permit", "publish", self.hub.hand(self.permit))
        self.model = self.hub.hand(model)
        self.node.machine.put(self.people.key("steward"), "/root/steward.key")
        eventually(
            lambda: any(line["permit"] == "story" for line in self.node.json("permit", "list")), what="the permit"
        )
        self.node.run("permit", "accept", "story", "1", "--key", "/root/steward.key")
        self.node.machine.run("rm", "/root/steward.key")

    def _submit(self, run: str, rounds: int, epochs: int = 1) -> None:
        order = self.hub.hand(self.people.order(run, self.permit, image_id(JOB), SITE, rounds, epochs))
        self.hub.run("run", "submit", "--order", order, "--model", self.model)

    def _round(self, run: str, *, rounds: int) -> float:
        began = time.monotonic()
        self._submit(run, rounds)
        history = self.hub.ended(run, within_s=2 * PATIENCE_S)
        assert history["state"] == "done", history
        return round(time.monotonic() - began, 1)
