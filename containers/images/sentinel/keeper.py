"""The keeper: holds a job's `/out`, says what appears in it, copies it and clears it. Standard library only.

It runs as a container of its own, sealed like the job, with nothing mounted but `/out`; so no process of the host
ever opens a folder that a job can write.

    keeper.py watch                        one JSON line for each event, until it is stopped
    keeper.py scan                         the same lines, once
    keeper.py copy TASK BYTES FILES        a framed stream of the files of /out/TASK (the job is frozen meanwhile)
    keeper.py clear                        empties /out

Lines: {"event":"done","task":n}, {"event":"progress","fraction":f,"task":n}, {"event":"full"}, and
{"event":"failed","exception":name,"task":n} with a name of `EXCEPTIONS`. A task prints at most 103 of them and at most
`MAX_TASKS` tasks are looked at, so a job cannot flood them.

Stream: `CLO1`, then frames of kind (1 byte), name length (2), content length (8, big-endian), name, content. Kinds: `F`
a file; `V` a violation (the rule as its name; last frame); `E` the end. A job's names and bytes never reach a rule.
"""

import errno
import json
import os
import re
import stat
import struct
import sys
import time

ROOT = "/out"
POLL_S = 0.1
MAX_TASKS = 10_000
BLOCK_BYTES = 1 << 20
# a progress file's last line is all that counts, and {"fraction": 0.123456789} is 30 bytes
TAIL_BYTES = 256
# more folders than any site's cap on files; clearing gives up there, and the job is destroyed
MAX_FOLDERS = 1_000_000

MAGIC = b"CLO1"
FRAME = struct.Struct(">cHQ")
TASK = re.compile(r"[1-9][0-9]{0,5}")
COPIED = ("checkpoint", "metrics.json", "model.safetensors")
# An analysis declares its tables in `outputs.json`; in a folder with one they are copied too, and gate 2 reads them.
OUTPUTS = "outputs.json"
MAX_TABLES = 64
TABLE = re.compile(r"[a-z][a-z0-9_]{0,39}\.(csv|json)")
KNOWN = frozenset({*COPIED, "progress.jsonl", "failure.json", "DONE"})
# {"exception": "UnsupportedContract"} is 36 bytes
FAILURE_BYTES = 128
# the same list as Cloister's own (`mediator/exits.py`); what is not on it is "other"
EXCEPTIONS = frozenset({
    "AssertionError", "AttributeError", "EOFError", "FileNotFoundError", "FloatingPointError", "ImportError",
    "IndexError", "KeyError", "MemoryError", "ModuleNotFoundError", "NameError", "NotImplementedError", "OSError",
    "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError",
    "UnboundLocalError", "UnicodeDecodeError", "ValueError", "ZeroDivisionError",
    "LinAlgError", "ArrowInvalid", "InvalidDicomError", "OutOfMemoryError", "SafetensorError",
    "NoReply", "UnsupportedContract",
})  # fmt: skip
# no symbolic link is ever followed, and opening a FIFO or a device never blocks or acts
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Violation(Exception):
    """The job's output breaks the contract; the text is the rule's name."""


# ------------------------------------------------------------------ watching


def open_root():
    """A descriptor of `/out`. The job owns the folder and may have shut it; so do we, and may open it."""
    try:
        return os.open(ROOT, FOLDER_FLAGS)
    except PermissionError:
        os.chmod(ROOT, 0o700)
        return os.open(ROOT, FOLDER_FLAGS)


class Watch:
    """What was already said about each task: a done, and the fraction reached in hundredths."""

    def __init__(self):
        self.tasks = set()
        self.done = set()
        self.failed = set()
        self.hundredths = {}
        self.full = False

    def look(self):
        """Yield the events that are new since the last look."""
        root = open_root()
        try:
            for name in os.listdir(root):
                if TASK.fullmatch(name) and (name in self.tasks or len(self.tasks) < MAX_TASKS):
                    self.tasks.add(name)
                    yield from self._look_at(root, name, int(name))
            left = os.fstatvfs(root)
            if not self.full and (left.f_bavail == 0 or left.f_favail == 0):
                self.full = True
                yield {"event": "full"}
        finally:
            os.close(root)

    def _look_at(self, root, name, task):
        if task in self.done:
            return
        try:
            folder = os.open(name, FOLDER_FLAGS, dir_fd=root)
        except OSError:
            return  # not a folder, or one we may not enter: copying it will name the rule
        try:
            fraction = last_fraction(folder)
            if fraction > self.hundredths.get(task, 0):
                self.hundredths[task] = fraction
                yield {"event": "progress", "fraction": fraction / 100, "task": task}
            if task not in self.failed and (raised := failure(folder)):
                self.failed.add(task)
                yield {"event": "failed", "exception": raised, "task": task}
            if is_file(folder, "DONE"):
                self.done.add(task)
                self.hundredths.pop(task, None)
                yield {"event": "done", "task": task}
        finally:
            os.close(folder)


def is_file(folder, name):
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def last_fraction(folder):
    """The last whole line's fraction in hundredths, 0 for anything that is not one."""
    if not is_file(folder, "progress.jsonl"):
        return 0
    try:
        file = os.open("progress.jsonl", FILE_FLAGS, dir_fd=folder)
    except OSError:
        return 0
    try:
        size = os.fstat(file).st_size
        tail = os.pread(file, TAIL_BYTES, max(0, size - TAIL_BYTES))
        value = json.loads(tail.rpartition(b"\n")[0].rpartition(b"\n")[2])["fraction"]
        return int(value * 100) if type(value) in (int, float) and 0 <= value <= 1 else 0
    except Exception:  # a job's bytes: whatever they are, no fraction
        return 0
    finally:
        os.close(file)


def failure(folder):
    """The exception class in `failure.json`, `other` for a name that is on no list; None for anything but a name."""
    if not is_file(folder, "failure.json"):
        return None
    try:
        file = os.open("failure.json", FILE_FLAGS, dir_fd=folder)
    except OSError:
        return None
    try:
        if os.fstat(file).st_size > FAILURE_BYTES:
            return None
        members = json.loads(os.pread(file, FAILURE_BYTES + 1, 0))
    except Exception:  # a job's bytes: whatever they are, no name
        return None
    finally:
        os.close(file)
    if type(members) is not dict or members.keys() != {"exception"} or type(members["exception"]) is not str:
        return None
    return members["exception"] if members["exception"] in EXCEPTIONS else "other"


def say(event):
    sys.stdout.write(json.dumps(event, sort_keys=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def watch():
    # Podman opens a container's output for a reader only when there is something in it
    print(flush=True)
    state = Watch()
    while True:
        for event in state.look():
            say(event)
        time.sleep(POLL_S)


# ------------------------------------------------------------------ copying


def frame(kind, name=b"", content_bytes=0):
    sys.stdout.buffer.write(FRAME.pack(kind, len(name), content_bytes) + name)


def copy(task, max_bytes, max_files):
    """Print the framed stream of the files of `/out/<task>`. The job is frozen, so what is checked is what is read."""
    sys.stdout.buffer.write(MAGIC)
    try:
        folder, names = look_into(task, max_files)
        for name in names:
            max_bytes -= copy_file(folder, name, max_bytes)
        frame(b"E")
    except Violation as rule:
        frame(b"V", str(rule).encode("ascii"))
    sys.stdout.buffer.flush()


def look_into(task, max_files):
    """The task's folder and the names to copy. Whatever else is wrong with it, it cannot be read."""
    try:
        root = open_root()
        try:
            folder = os.open(str(task), FOLDER_FLAGS, dir_fd=root)
        except FileNotFoundError:
            raise Violation("missing") from None
        except OSError:
            raise Violation("not_a_folder") from None
        return folder, permitted(folder, max_files)
    except Violation:
        raise
    except Exception:
        raise Violation("unreadable") from None


def permitted(folder, max_files):
    """The names to copy, after every name in the folder was looked at."""
    names = os.listdir(folder)
    if len(names) > max_files:
        raise Violation("too_many_files")
    tables = [name for name in names if OUTPUTS in names and TABLE.fullmatch(name) and name not in KNOWN]
    if len(tables) > MAX_TABLES:
        raise Violation("too_many_files")
    for name in names:
        if name not in KNOWN and name not in tables:
            raise Violation("unknown_name")
        what = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISREG(what.st_mode):
            raise Violation("not_a_regular_file")
        if what.st_nlink != 1:
            raise Violation("hard_link")
    return [name for name in COPIED if name in names] + sorted(tables)


def copy_file(folder, name, max_bytes):
    try:
        file = os.open(name, FILE_FLAGS, dir_fd=folder)
    except Exception as error:
        is_link = isinstance(error, OSError) and error.errno == errno.ELOOP
        raise Violation("not_a_regular_file" if is_link else "unreadable") from None
    try:
        what = os.fstat(file)
        if not stat.S_ISREG(what.st_mode) or what.st_nlink != 1:
            raise Violation("not_a_regular_file")
        if what.st_size > max_bytes:
            raise Violation("too_large")
        frame(b"F", name.encode("ascii"), what.st_size)
        left = what.st_size
        while left:
            block = os.read(file, min(left, BLOCK_BYTES))
            if not block:
                # the frame is already open: only an end without one can say so
                raise SystemExit("a file shrank while it was read")
            sys.stdout.buffer.write(block)
            left -= len(block)
        return what.st_size
    finally:
        os.close(file)


# ------------------------------------------------------------------ clearing


def clear():
    """Remove everything in `/out`, whatever its mode or depth. Exits 1 if something is left."""
    root = open_root()
    os.fchmod(root, 0o700)
    waiting = os.listdir(root)
    for number in range(MAX_FOLDERS):
        if not waiting:
            break
        name = waiting.pop()
        try:
            os.unlink(name, dir_fd=root)
        except IsADirectoryError:
            waiting += empty(root, name, number)
            os.rmdir(name, dir_fd=root)
    sys.exit(1 if os.listdir(root) else 0)


def empty(root, name, number):
    """Empty the folder `name` of `root`: unlink its files, move its folders up into `root`, where depth costs nothing.

    Returns the names of the folders moved.
    """
    unlock(root, name)
    folder = os.open(name, FOLDER_FLAGS, dir_fd=root)
    moved = []
    try:
        for entry in os.listdir(folder):
            try:
                os.unlink(entry, dir_fd=folder)
            except IsADirectoryError:
                unlock(folder, entry)  # moving a folder writes its `..`
                moved.append(f"...{time.monotonic_ns()}.{number}.{len(moved)}")
                os.rename(entry, moved[-1], src_dir_fd=folder, dst_dir_fd=root)
    finally:
        os.close(folder)
    return moved


def unlock(parent, name):
    """Give ourselves every right on a folder that a job may have made unreadable; `O_PATH` needs none."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", 0o700)
    finally:
        os.close(handle)


def main(arguments):
    verb, *rest = arguments or ["watch"]
    if verb == "watch":
        watch()
    elif verb == "scan":
        for event in Watch().look():
            say(event)
    elif verb == "copy":
        copy(*map(int, rest))
    elif verb == "clear":
        clear()
    else:
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
