"""A real pipe between two programs, one of which is disturbed."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.forked import HUNG, Run


@contextmanager
def fifo(path: Path) -> Iterator[Path]:
    """A pipe with a name for the time in which both ends are opened: held open, so that neither waits for the other."""
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    try:
        yield path
    finally:
        os.close(held)
        path.unlink()


def cat(directory: Path, file: str, out: Path) -> Callable[[], str]:
    """Waits for its end."""
    with out.open("wb", buffering=0) as pipe:
        process = subprocess.Popen(["cat", file], cwd=directory, stdin=subprocess.DEVNULL, stdout=pipe)

    def said() -> str:
        try:
            process.wait(HUNG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return ""

    return said


def said_by(other: Run) -> Callable[[], str]:
    """Waits for its end."""
    return lambda: other.ended().said
