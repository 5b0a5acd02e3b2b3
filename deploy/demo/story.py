"""The demo from the first key to the last proof, phase by phase."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from deploy.demo import bench, data, evidence, images, permits, picture, rounds, troubles
from deploy.demo.act import Act
from deploy.demo.hospital import Hospital
from deploy.demo.hub import Hub
from deploy.demo.lesions import KINDS
from deploy.demo.people import People
from deploy.demo.report import TOGETHER, Figures, Report, absolute, read_rounds
from deploy.demo.rounds import Watcher
from deploy.demo.show import Phase, Screen
from deploy.demo.workplace import SITES, Workplace
from deploy.driver import services
from deploy.driver.commands import Commands
from tests.sim.search import search

T = TypeVar("T")
MAIN_RUN, PERMIT = "federated", "lesion-permit"
# one run's rounds, the local run's, and one to spare for the closing act; the byte budget likewise
SPARE_ROUNDS = 4
BYTE_BUDGET = 200_000_000


class Story:
    """One demo. Each method is a phase; `tell` is their order."""

    def __init__(
        self, place: Workplace, commands: Commands, screen: Screen, repository: Path, wanted_rounds: int
    ) -> None:
        self.place, self.commands, self.screen = place, commands, screen
        self.repository, self.rounds = repository, wanted_rounds
        self.hub = Hub(commands, place)
        self.people = People.at(place, commands, SITES)
        self.hospitals = {site: Hospital(commands, place, site, self.people.stewards[site]) for site in SITES}
        self.report = Report(wanted_rounds, {site: Figures(site, KINDS[site].name) for site in SITES})
        self.report.separate_users = place.as_root
        self.report.hub_ingress = self.hub.address
        self.images: dict[str, str] = {}
        self.identifiers: list[str] = []
        self.model = place.post / "initial.safetensors"
        self.archive = place.post / "images.tar"
        self.patients = place.researcher / "patients"
        self.permit = place.post / f"{PERMIT}.jws"

    def tell(self) -> None:
        """Everything up to the last proof; the search comes when the programs have ended.

        What needs nothing of each other goes on at once: sources are made while nodes are installed, images while they
        are filled; and each hospital learns alone while all learn together.
        """
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(1))
            sources = stack.enter_context(ProcessPoolExecutor(2))
            made = [
                sources.submit(data.make_source, self.place.source / site, site, seed)
                for seed, site in enumerate(SITES, 1)
            ]
            patients = sources.submit(bench.make_patients, self.patients)
            self._people()
            self._sentinel()
            self._install()
            building = pool.submit(self._build)
            self._source(made)
            self._ingest()
            self._images(building)
            patients.result()
        self._permit()
        self._train()
        with ThreadPoolExecutor(1) as pool:
            scoring = pool.submit(self._score)  # one container computes while the attacks are tried
            self._act()
            self._test(scoring)
        self._audit()

    # ---- before the first image moves

    def _people(self) -> None:
        with self.screen.phase("keys") as phase:
            self._each(self.people.everybody(), lambda person: person.make_key())
            self.hub.configure(self.people.committee.public_key, name="demo-hub")
            self.hub.init()
            self.report.committee_closed_to_hub = self.people.closed_to(self.place.hub_account)
            phase.summary = (
                "committee, researcher, three stewards, hub"
                + {
                    True: "; the committee's folder is closed to the hub",
                    False: "",
                    None: "; as a plain user all share one account",
                }[self.report.committee_closed_to_hub]
            )

    def _sentinel(self) -> None:
        with self.screen.phase("engine") as phase:
            self.images |= images.ensure(self.repository, [images.SENTINEL], phase.say)
            phase.summary = os.environ["DOCKER_HOST"]

    def _build(self) -> None:
        """The jobs' images in every hospital, and the untrained model, while the hospitals are being filled."""
        said = lambda line: self.screen.line(f"    {line}", "dim")  # noqa: E731
        self.images |= images.ensure(self.repository, [images.JOB, images.ROGUE], said)
        images.untrained_model(self.images[images.JOB], self.place.post)
        self.report.picture = picture.take(self.commands, self.place.researcher / "picture")
        images.archive([self.images[images.JOB], self.images[images.ROGUE]], self.archive)
        self._each(self.hospitals.values(), lambda hospital: hospital.add_images(self.archive))
        self.archive.unlink()

    def _source(self, made: Iterable[Future[data.Source]]) -> None:
        with self.screen.phase("source") as phase:
            sources = [future.result() for future in made]
            for source in sources:
                self.report.hospitals[source.site].planted = len(source.planted)
                self.report.hospitals[source.site].good_in = len(source.statistics)
                data.close_to_all_but(source.folder, self.place.node_account(source.site, "intake"))
            path = self.place.source / data.IDENTIFIERS
            self.identifiers = data.write_identifiers(path, sources)
            self.report.search.identifiers_file = absolute(path)
            self.report.search.planted = len(self.identifiers)
            self.report.auc_of_statistics = data.auc_of_statistics(sources)
            studies = sum(len(source.statistics) for source in sources)
            phase.summary = (
                f"{studies} generated studies and pydicom's own files, {len(self.identifiers)} identifiers planted; "
                f"AUC of an image's mean or variance at most {max(self.report.auc_of_statistics.values()):.2f}"
            )

    def _install(self) -> None:
        with self.screen.phase("install", SITES) as phase:
            self.hub.serve()
            self._each(self.hospitals.values(), lambda hospital: self._install_one(hospital, phase))
            link = self.hospitals[SITES[0]].state / "link"
            files = {"ca": self.hub.ca, "certificate": link / "tls.crt", "key": link / "tls.key"}
            self.report.outsider = {name: absolute(path) for name, path in files.items()}
            phase.summary = f"hub at {self.hub.address}, three nodes of four processes each" + (
                ", every one under its own user" if self.place.as_root else ""
            )

    def _install_one(self, hospital: Hospital, phase: Phase) -> None:
        phase.update(hospital.site, "state folder and keys", passing=True)
        hospital.install(
            self.hub, self.people.committee.public_key, engine=os.environ["DOCKER_HOST"],
            sentinel=self.images[images.SENTINEL],
        )  # fmt: skip
        phase.update(hospital.site, "starting core, broker, intake, link", passing=True)
        hospital.serve()
        phase.update(hospital.site, "core, broker, intake and link are running", 1, 1)

    # ---- gate 0

    def _ingest(self) -> None:
        with self.screen.phase("ingest", SITES) as phase:
            self._each(self.hospitals.values(), lambda hospital: self._ingest_one(hospital, phase))
            figures = self.report.hospitals.values()
            phase.summary = (
                f"{sum(each.studies_in for each in figures)} studies in, "
                f"{sum(each.studies_published for each in figures)} published, "
                f"{sum(each.held_out for each in figures)} kept for testing; "
                f"good studies lost: {sum(each.good_in - each.good_published for each in figures)}"
            )

    def _ingest_one(self, hospital: Hospital, phase: Phase) -> None:
        answer = hospital.ingest(lambda line: phase.update(hospital.site, line[:100]))
        figures, counts = self.report.hospitals[hospital.site], answer["counts"]
        figures.studies_in = answer["studies_in"]
        figures.studies_published = answer["studies_published"]
        figures.excluded = answer["excluded"]
        figures.instances = counts.get("instances", 0)
        figures.held_out = counts.get("test", 0)
        figures.good_published = counts.get("train", 0) + counts.get("test", 0)
        figures.troubles, figures.troubles_found = len(troubles.TROUBLES), troubles.found(figures.excluded)
        figures.dataset_version = answer["dataset_version"]

    # ---- gate 1: three signatures

    def _images(self, building: Future[None]) -> None:
        with self.screen.phase("images") as phase:
            building.result()
            job = self.images[images.JOB][:19]
            phase.summary = f"in every hospital; the job is {job}…, and nothing else may run under its name"

    def draft(self, name: str, *, image: str, **other: Any) -> dict[str, Any]:
        """A permit draft over all three dataset versions."""
        committee, researcher = self.people.committee, self.people.researcher
        versions = {site: figures.dataset_version for site, figures in self.report.hospitals.items()}
        tensors = json.loads((self.place.post / "tensors.json").read_text(encoding="utf-8"))
        usual: dict[str, Any] = {
            "config": permits.CONFIG, "issuer": committee.key_id, "researchers": [researcher.public_key],
            "maximum_rounds": 2 * self.rounds + SPARE_ROUNDS, "byte_budget": BYTE_BUDGET,
        }  # fmt: skip
        return permits.draft(name, image=image, versions=versions, tensors=tensors, **(usual | other))

    def _permit(self) -> None:
        with self.screen.phase("permit", SITES) as phase:
            self.hub.publish_revocations(self.people.sign_revocations(1))
            self.permit = self.people.sign_permit(self.draft(PERMIT, image=self.images[images.JOB]))
            self.hub.publish_permit(self.permit)
            phase.say("signed by the access committee, published by the hub")
            self._each(self.hospitals.values(), lambda hospital: self._accept(hospital, phase))
            phase.summary = "one signature by the committee, one acceptance by each hospital's steward"

    def _accept(self, hospital: Hospital, phase: Phase) -> None:
        hospital.approve_image(self.images[images.JOB])
        phase.update(hospital.site, "image approved", passing=True)
        hospital.accept(PERMIT)
        phase.update(hospital.site, "permit accepted by the steward", 1, 1)

    # ---- rounds

    def _start(self, run: str, sites: Iterable[str]) -> None:
        image = self.images[images.JOB]
        order = self.people.order(run, self.permit, image, list(sites), self.rounds, permits.TRAINING)
        self.hub.submit(order, self.model)

    def _train(self) -> None:
        """Four runs at once: all hospitals together, and each alone in as many rounds."""
        lanes = {site: f"{site} alone" for site in SITES}
        with self.screen.phase("training", (*SITES, *lanes.values())) as phase:
            orders = self._order_all()
            phase.say(f"{orders} run orders signed by the researcher, submitted to the hub")
            with ThreadPoolExecutor(len(SITES)) as pool:
                alone = [pool.submit(self._alone_one, site, lane, phase) for site, lane in lanes.items()]
                run = rounds.follow(self.hub, MAIN_RUN, Watcher(phase, SITES, self.rounds))
                self.report.rounds = read_rounds(run)
                for future in alone:
                    future.result()
            phase.summary = (
                f"{len(self.report.trained)} rounds, AUC {self.report.auc_untrained or 0:.3f} untrained, "
                f"{self.report.auc_global or 0:.3f} federated; alone, on its own patients: "
                + ", ".join(f"{each.name} {each.auc_at_home or 0:.3f}" for each in self.report.hospitals.values())
            )

    def _order_all(self) -> int:
        """Sign and submit every run's order, all together first; how many."""
        wanted: dict[str, Iterable[str]] = {MAIN_RUN: SITES} | {f"local-{site}": [site] for site in SITES}
        self._each(wanted.items(), lambda order: self._start(*order))
        return len(wanted)

    def _alone_one(self, site: str, lane: str, phase: Phase) -> None:
        """What a hospital reaches by itself."""
        watcher = Watcher(phase, [site], self.rounds, quiet=True, lanes={site: lane})
        done = read_rounds(rounds.follow(self.hub, f"local-{site}", watcher))
        self.report.hospitals[site].auc_at_home = done[-1].auc
        phase.update(lane, f"after {self.rounds} rounds: AUC {done[-1].auc:.3f} on its own patients")

    def _score(self) -> dict[str, float]:
        """Every round's model, alone and together, on the researcher's own patients of all three kinds."""
        models = {
            f"{name}/{number}": self.hub.model(run, number)
            for name, run in self._runs.items()
            for number in range(self.rounds + 1)
        }
        return bench.score(self.images[images.JOB], self.patients, models, json.loads(permits.TRAINING))

    def _test(self, scoring: Future[dict[str, float]]) -> None:
        with self.screen.phase("test") as phase:
            scores = scoring.result()
            self.report.tested = {
                name: [scores[f"{name}/{number}"] for number in range(self.rounds + 1)] for name in self._runs
            }
            for site, figures in self.report.hospitals.items():
                figures.auc_local_only = self.report.tested[site][-1]
            alone = ", ".join(f"{site} {self.report.tested[site][-1]:.3f}" for site in SITES)
            phase.summary = f"on patients of all three kinds: together {self.report.auc_together:.3f}, alone {alone}"

    @property
    def _runs(self) -> dict[str, str]:
        return {TOGETHER: MAIN_RUN} | {site: f"local-{site}" for site in SITES}

    # ---- what must not be, and what is on record

    def _act(self) -> None:
        with self.screen.phase("closing act") as phase:
            act = Act(
                self.hub, self.people, self.hospitals, self.report, phase, self.model, MAIN_RUN, self.images, self.draft
            )
            act.play()
            refused = sum(self.report.refusals.values())
            phase.summary = f"{refused} of {len(self.report.refusals)} attempts refused"

    def _audit(self) -> None:
        with self.screen.phase("audit", SITES) as phase:
            self._each(self.hospitals.values(), lambda hospital: self._audit_one(hospital, phase))
            whole = sum(each.audit_ok for each in self.report.hospitals.values())
            phase.summary = f"{whole} of {len(SITES)} logs verify offline"

    def _audit_one(self, hospital: Hospital, phase: Phase) -> None:
        figures = self.report.hospitals[hospital.site]
        figures.bytes_out = hospital.bytes_out()
        figures.quarantine_files = hospital.quarantine_files()
        destroyed = evidence.find_done(evidence.records(hospital.audit), "quarantine_destroy")
        figures.quarantine_destroyed_sequence = destroyed
        hospital.checkpoint()
        figures.audit_dir, figures.audit_key = absolute(hospital.audit), absolute(hospital.audit_key)
        figures.witness_file = absolute(hospital.witness_file)
        verified = hospital.verify_audit()
        figures.audit_ok, figures.audit_records = bool(verified.get("ok")), int(verified.get("records", 0))
        phase.update(hospital.site, "verified" if figures.audit_ok else "BROKEN", 1, 1)

    def search(self) -> None:
        """Look for every planted identifier everywhere but in `source/`, and, to know that this finds, there too."""
        with self.screen.phase("search") as phase, ThreadPoolExecutor(2) as pool:
            found = self.report.search
            roots = self.place.search_roots()
            found.roots = [absolute(root) for root in roots]
            found.files = sum(1 for root in roots for path in root.rglob("*") if path.is_file())
            control = pool.submit(search, [self.place.source / site for site in SITES], self.identifiers)
            hits = search(roots, self.identifiers)
            found.found = len({hit.token for hit in hits})
            for hit in hits[:10]:
                phase.say(f"found in {hit.path}", "bold red")
            found.found_in_source = len({hit.token for hit in control.result()})
            phase.summary = f"{found.found} of {found.planted} identifiers found in {found.files} files"

    def search_again(self, paths: Iterable[Path]) -> bool:
        """The report and the terminal's record, written after the search; whether that found anything new."""
        hits = search(paths, self.identifiers)
        self.report.search.found = (self.report.search.found or 0) + len({hit.token for hit in hits})
        return bool(hits)

    # ---- hub and nodes

    @property
    def services(self) -> list[services.Service]:
        """What was started and lasts, the hub first."""
        nodes = [hospital.service for hospital in self.hospitals.values()]
        return [each for each in (self.hub.service, *nodes) if each is not None]

    def stop(self) -> None:
        """End every command and every program of ours: nodes first, so that they can say goodbye to the hub."""
        self.commands.end_all()
        services.stop([each.process for each in self.services if each is not self.hub.service])
        self.hub.stop()

    @staticmethod
    def _each(items: Iterable[T], do: Callable[[T], None]) -> None:
        """Do something for all at once; the first failure is raised when all have ended."""
        listed = list(items)
        with ThreadPoolExecutor(len(listed)) as pool:
            for done in [pool.submit(do, item) for item in listed]:
                done.result()
