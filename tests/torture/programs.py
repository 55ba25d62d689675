"""What runs and is held: processes, locks, mounts."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path


def processes_in(directory: Path, spared: frozenset[int]) -> list[str]:
    """`PID COMMAND LINE` of live processes that have `directory` in their command line, or their root or cwd in it."""
    found, text = [], f"{directory}/"
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if pid in spared or pid == os.getpid():
            continue
        with suppress(OSError):
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if line and (text in line or f"{(path / 'cwd').readlink()}/".startswith(text)):
                found.append(f"{pid} {line.strip()}")
    return found


def settled(directory: Path, spared: frozenset[int], seconds: float = 30.0) -> list[str]:
    """The processes that are still there after `seconds` at most."""
    deadline = time.monotonic() + seconds
    while (found := processes_in(directory, spared)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def mounts_in(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if f"{directory}/" in line]


def is_locked(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
