"""An ingest needs no more memory for a large film than for a small one."""

import os
import subprocess
import sys
from pathlib import Path

from node.deid.limits import MAX_PROCESS_BYTES
from tests.sim.dicom import ct_slice, to_bytes

ROOT = Path(__file__).parents[3]
FRAMES, SIDE = 800, 512  # 400 MB of pixels
INGEST = """
import sys
from pathlib import Path
from mediator.import_orders import IngestOrder
from node.deid import processes
from node.intake.run_import import IntakeFolders, IntakeKeys
from tests.sim.intake import steps_of
source, room = sys.argv[1:]
order = IngestOrder("order-1", "alpha", "liver", "cohort", source, "eucaim", None, (), 0.2)
rooms = IntakeFolders(Path(room, "quarantine"), Path(room, "handover"))
rooms.handover.mkdir(parents=True, exist_ok=True)
keys = IntakeKeys(b"s" * 32, b"q" * 32)

def peak_bytes() -> int:
    with open("/proc/self/status") as status:
        return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))

class Measured(processes.WorkerProcesses):
    def __exit__(self, *error):
        print(self._pool.submit(peak_bytes).result())
        super().__exit__(*error)

if __name__ == "__main__":
    *_, last = steps_of(order, rooms, keys, lambda settings: Measured(settings, 1))
    print(peak_bytes(), last.report.instances_published)
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
    program = tmp_path / "ingest.py"
    program.write_text(INGEST)
    command, here = [sys.executable, program, source, room], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=here)
    *peaks, published = map(int, done.stdout.split())
    (film,) = (room / "handover" / "order-1").rglob("*.dcm")
    assert published == 1 and film.stat().st_size > size and len(peaks) == 2
    assert max(peaks) < MAX_PROCESS_BYTES  # intake's own and its worker's
