"""The self-test's job: what a container of the sentinel's image runs as a small job of nobody's (contract 1).

It reads every file of `/data`, adds one to each number of the model, and answers with that and with what it read. The
broker gives it to the container as a text, so an image from before it will do; therefore the standard library alone.
"""

import hashlib
import json
import os
import struct
import sys
import time

DATA, TASK, OUT = "/data", "/in/tasks/1", "/out/1"
WAIT_S = 60.0


def what_was_read(folder: str) -> dict[str, int]:
    """How many files lie below a folder, and a number over their paths and their bytes."""
    paths = sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            content = file.read()
        whole.update(f"{os.path.relpath(path, folder)} {len(content)}\n".encode() + content)
    # metrics are numbers, and one of 48 bits is exact in any JSON
    return {"files": len(paths), "read": int(whole.hexdigest()[:12], 16)}


def one_more(model: bytes) -> bytes:
    """The same safetensors file with one more in each number; all of them are F32."""
    start = 8 + int.from_bytes(model[:8], "little")
    numbers = struct.unpack(f"<{(len(model) - start) // 4}f", model[start:])
    return model[:start] + struct.pack(f"<{len(numbers)}f", *(number + 1 for number in numbers))


def main() -> None:
    until = time.monotonic() + WAIT_S
    while not os.path.exists(TASK):  # it appears whole
        if time.monotonic() > until:
            sys.exit("no task came")
        time.sleep(0.05)
    with open(f"{TASK}/model.safetensors", "rb") as given:
        model = one_more(given.read())
    os.mkdir(OUT)
    with open(f"{OUT}/model.safetensors", "wb") as answer:
        answer.write(model)
    with open(f"{OUT}/metrics.json", "w", encoding="ascii") as metrics:
        json.dump(what_was_read(DATA), metrics)
    with open(f"{OUT}/DONE", "xb"):
        pass
    while not os.path.exists("/in/stop"):  # a job stays between two tasks, until it is stopped
        time.sleep(0.1)


if __name__ == "__main__":
    main()
