"""strace: counting the system calls of an undisturbed run, and making one of them fail, or kill, in another."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.forked import Run

WRITING: Final = (
    "write", "pwrite64", "writev", "copy_file_range", "sendfile", "mkdir", "mkdirat", "rename", "renameat", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "fsync", "fdatasync", "syncfs", "ftruncate", "fallocate",
    "chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown", "fchownat", "setxattr",
)  # fmt: skip
REMOVING: Final = ("unlink", "unlinkat", "rmdir")
READING: Final = ("read", "pread64", "preadv", "getdents64", "newfstatat", "statx", "openat", "openat2", "flock")
STARTING: Final = ("execve",)
CALLS: Final = (*WRITING, *REMOVING, *READING, *STARTING)
CREATE: Final = "create"  # an openat that may make the file
_BY_DESCRIPTOR: Final = {
    "read", "pread64", "preadv", "write", "pwrite64", "writev", "copy_file_range", "sendfile", "getdents64", "fsync",
    "fdatasync", "syncfs", "ftruncate", "fallocate", "fchmod", "fchown", "flock",
}  # fmt: skip
_DESCRIPTOR: Final = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
_CALL: Final = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RANDOM: Final = re.compile(
    r"regwrap-\w{6,}|run-\w{6,}|oci-put|tmp\w{8}|/tmp\.|container_images|\.umoci|umoci-|deleted|(^|/)#\d+|/scratch/|\d{9,}"
)


@dataclass(frozen=True, order=True)
class Point:
    """A moment of a scenario: the `number`th `call` on `path` (relative to the case); without a stable path the
    `number`th of each process, reached on something in the case."""

    call: str
    path: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.call}@{self.path or '*'}#{self.number}"

    @classmethod
    def parse(cls, name: str) -> "Point":
        call, _, rest = name.partition("@")
        path, _, number = rest.rpartition("#")
        return cls(call, "" if path == "*" else path, int(number))


def attached(run: Run, log: Path, *options: str) -> "subprocess.Popen[bytes]":
    """strace on a regwrap that waits for it. It ends with the last process of the run."""
    # fmt: off
    command = ["strace", "-f", "-qqq", "-p", f"{run.pid}", "-o", f"{log}", "-s", "400", "-e", "signal=none", *options]
    # fmt: on
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def points_in(log: Path, root: Path) -> Iterator[Point]:
    """The moments of a traced run (-y) that concern the case at `root`, or start a program."""
    each: Counter[tuple[str, str, str]] = Counter()
    every: Counter[tuple[str, str]] = Counter()
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if not match or match[2] not in CALLS:
            continue
        pid, call, rest = match.groups()
        every[pid, call] += 1
        path = _path_of(call, rest, root)
        if path is None:
            continue
        each[pid, call, path] += 1
        random = _RANDOM.search(path) is not None
        name = CREATE if call == "openat" and "O_CREAT" in rest else call
        found.add(Point(name, "" if random else path, every[pid, call] if random else each[pid, call, path]))
    yield from sorted(found)


def _path_of(call: str, rest: str, root: Path) -> str | None:
    """What a call is about, relative to the case; None for what lies elsewhere."""
    directory = _DESCRIPTOR.match(rest)
    quoted = "" if call in _BY_DESCRIPTOR else rest.partition('"')[2].partition('"')[0]
    if call == "execve":
        return quoted if quoted.startswith("/usr/") else None
    if directory and not quoted.startswith("/") and (call in _BY_DESCRIPTOR or not rest.startswith("AT_FDCWD")):
        path = directory[1]  # -P knows the directory that a name is relative to, and not the name
    elif quoted.startswith("/"):
        path = quoted
    elif quoted:
        return quoted  # relative to the case
    else:
        return None
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None


def injection(point: Point, root: Path, effect: str) -> tuple[str, ...]:
    """strace's options that let `effect` (`error=EIO`, `signal=KILL`) happen at `point`."""
    call = "openat" if point.call == CREATE else point.call
    ways = (point.path,) if point.path.startswith("/") else (point.path, f"{root}/{point.path}")
    return (
        *(option for way in ways if point.path for option in ("-P", way)),
        "-e", f"trace={call}", "-e", f"inject={call}:{effect}:when={point.number}",
    )  # fmt: skip


def was_hit(log: Path, *, signal: bool = False, of: str = "") -> bool:
    """Whether the injection took place, at a file with `of` in its path. A signal is noted only by the call that it
    came with."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return bool(text.strip()) if signal else any("(INJECTED)" in line and of in line for line in text.splitlines())
