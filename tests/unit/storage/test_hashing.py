"""Bytes in pieces: who hashes or copies much is no reason to wait for."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regwrap.core.errors import Interrupted
from regwrap.storage.hashing import hash_at, hash_file


@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("way", ["file", "place"])
def test_a_run_that_is_interrupted_waits_for_no_thread_that_hashes(tmp_path: Path, way: str) -> None:
    """Ctrl-C in a release of a hundred gigabytes would come back after minutes."""
    path, begun = tmp_path / "large", threading.Event()
    with path.open("wb") as file:
        file.truncate(8 << 30)

    def work() -> None:
        begun.set()
        if way == "file":
            hash_file(path)
        else:
            hash_at(descriptor, 0, 8 << 30)

    descriptor = os.open(path, os.O_RDONLY)
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(work)
        begun.wait(10)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    os.close(descriptor)
    assert isinstance(hashing.exception(), Interrupted)
