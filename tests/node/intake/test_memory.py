"""An ingest needs no more memory for a large film than for a small one."""

import subprocess
import sys

from node.deid.limits import MAX_PROCESS_BYTES
from tests.sim.dicom import ct_slice, to_bytes

FRAMES, SIDE = 800, 512  # 400 MB of pixels
INGEST = """
import sys
from pathlib import Path
from mediator.deid.orders import IngestOrder
from node.deid.engine import open_engine
from node.deid.pixels import PixelGate
from node.intake.batch import IntakeFolders, IntakeKeys, run_ingest
source, room = sys.argv[1:]
order = IngestOrder("order-1", "alpha", "liver", "cohort", source, "eucaim", None, (), 0.2)
rooms = IntakeFolders(Path(room, "quarantine"), Path(room, "handover"))
rooms.handover.mkdir(parents=True)
keys = IntakeKeys(b"s" * 32, b"q" * 32)
steps = run_ingest(order, engine=open_engine("eucaim"), pixels=PixelGate(), keys=keys, rooms=rooms)
*_, last = steps
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(last.report.instances_published, int(peak) * 1024)
"""


def test_a_film_of_400_mb_is_taken_in_within_the_limit_of_a_process(tmp_path):
    source, room = tmp_path / "source", tmp_path / "room"
    source.mkdir()
    dataset = ct_slice()
    dataset.BurnedInAnnotation = "NO"
    dataset.SOPClassUID, dataset.NumberOfFrames = "1.2.840.10008.5.1.4.1.1.2.1", FRAMES
    dataset.Rows = dataset.Columns = SIDE
    size = FRAMES * SIDE * SIDE * 2
    dataset.PixelData = bytes(2)
    raw = to_bytes(dataset)
    header = raw[:-6] + size.to_bytes(4, "little")
    with (source / "film").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    done = subprocess.run([sys.executable, "-c", INGEST, source, room], capture_output=True, text=True, check=True)
    published, peak = map(int, done.stdout.split())
    (film,) = (room / "handover" / "order-1").rglob("*.dcm")
    assert published == 1 and film.stat().st_size > size and peak < MAX_PROCESS_BYTES
