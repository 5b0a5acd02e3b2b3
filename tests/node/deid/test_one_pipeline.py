"""A run on a folder and an import are one pipeline: the same bytes for what passes, the same reasons for the rest."""

from pathlib import Path

from pydicom.uid import SecondaryCaptureImageStorage

from mediator.deid.pseudonyms import Pseudonyms
from node.deid.pipeline import Batch, Placed, Result, Search, known_of, to_search
from node.deid.run import list_files
from node.deid.sinks import FolderSink, StudySink
from node.deid.source_folder import FolderSource
from node.deid.worker_settings import Settings
from node.intake.quarantine import Quarantine
from tests.node.cli.deid_desk import plain_slice, put
from tests.sim.cohort import write_cohort
from tests.sim.deid_workers import InProcess, headers_only

KEYED = Pseudonyms(bytes(32), "liver")


def mixed(source: Path) -> None:
    """What passes, what a person may look at, and what neither."""
    write_cohort(source, "alpha", 3, seed=4)
    put(source, "z/good", plain_slice())
    put(source, "z/again", plain_slice())
    put(source, "z/nobody", plain_slice(PatientID="", SOPInstanceUID="1.2.3.1"))
    put(source, "z/capture", plain_slice(SOPClassUID=SecondaryCaptureImageStorage, SOPInstanceUID="1.2.3.2"))
    put(source, "z/both", plain_slice(PatientID="", ConversionType="WSD", SOPInstanceUID="1.2.3.3"))
    put(source, "z/pdf", plain_slice(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", SOPInstanceUID="1.2.3.4"))
    put(source, "z/short", (source / "z/good").read_bytes()[:-10])
    put(source, "z/no picture", plain_slice(Rows=9, SOPInstanceUID="1.2.3.5"))
    put(source, "z/hand", plain_slice(SeriesDescription="HAND CHEST", SOPInstanceUID="1.2.3.6"))
    put(source, "z/names it", plain_slice(OperatorsName="Hand^X", SOPInstanceUID="1.2.3.7"))


def results(source: object, files: list, sink: object, *, review: bool) -> dict[int, tuple[Result, bytes]]:
    """By number: what became of a file, and its bytes where it stands."""
    settings = Settings(source, "eucaim", KEYED, review=review, parts=headers_only)
    with InProcess(settings) as workers:
        (done,) = workers.run([Batch(tuple(files), sink)])
    places = {one.number: sink.place(one.name, review=one.outcome == "review") for one in done.results if one.name}
    return {one.number: (one, places[one.number].read_bytes() if one.name else b"") for one in done.results}


def test_what_passes_is_the_same_bytes_and_what_a_person_may_see_is_excluded_where_there_is_none(tmp_path):
    source = tmp_path / "source"
    mixed(source)
    files, folder = list_files(str(source)), FolderSource(str(source))
    with FolderSink(tmp_path / "out") as sink:
        run = results(folder, files, sink, review=True)
    imported = results(folder, files, StudySink(tmp_path / "study"), review=False)
    outcomes = set()
    for number, (one, content) in run.items():
        other, same = imported[number]
        outcomes.add(one.outcome)
        assert other.outcome == ("written" if one.outcome == "written" else "refused")
        assert other.reasons == one.reasons and same == (content if one.outcome == "written" else b"")
        if one.outcome != "refused":
            assert other.identity.study == one.identity.study != ""
    assert outcomes == {"written", "review", "refused"}


def test_originals_out_of_quarantine_are_what_they_were_in_the_folder(tmp_path):
    source = tmp_path / "source"
    mixed(source)
    quarantine, files, sealed = Quarantine(tmp_path / "sealed", bytes(32)), list_files(str(source)), []
    for file in files:
        with (source / file.path).open("rb") as original:
            sealed.append(type(file)(file.number, quarantine.put(original.fileno())[0]))
    plain = results(FolderSource(str(source)), files, StudySink(tmp_path / "one"), review=False)
    again = results(quarantine.source, sealed, StudySink(tmp_path / "two"), review=False)
    assert plain == again


def test_study_by_study_says_what_all_at_once_says(tmp_path):
    """As an import goes: each study in its turn, then each searched for what the patient's others lost."""
    source = tmp_path / "source"
    for number in range(6):
        names = {"OperatorsName": f"Op{number}^Verm{number}eulen", "SeriesDescription": f"CHEST VERM{number % 3}EULEN"}
        uids = {"SOPInstanceUID": f"1.2.4.{number}", "StudyInstanceUID": f"1.2.9.{number % 3}"}
        put(source, str(number), plain_slice(PatientID="P12", **names, **uids))
    files, folder = list_files(str(source)), FolderSource(str(source))
    at_once = results(folder, files, StudySink(tmp_path / "once"), review=False)
    with InProcess(Settings(folder, "eucaim", KEYED, parts=headers_only)) as workers:
        surveys = list(workers.survey(files))
        studies: dict[str, list[int]] = {}
        for place, survey in enumerate(surveys):
            studies.setdefault(survey.identity.study, []).append(place)
        known, traces, found = known_of(surveys), [], {}
        for study, places in studies.items():
            sink = StudySink(tmp_path / study)
            (done,) = workers.run([Batch(tuple(files[place] for place in places), sink, known[places[0]])])
            traces += done.traces
            found |= {one.number: (one, sink.place(one.name, review=False)) for one in done.results}
        for trace, fresh in to_search(traces):
            placed = tuple(Placed(files[number - 1], found[number][1]) for number in trace.numbers)
            assert list(workers.search_again([Search(placed, fresh)])) == [()]
    assert len(studies) == 3 and all(one.outcome == "written" for one, _ in at_once.values())
    assert {number: (one, path.read_bytes()) for number, (one, path) in found.items()} == at_once
