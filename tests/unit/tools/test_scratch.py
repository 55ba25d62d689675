"""Private directories of runs: none outlives the next run, at whatever moment its own was killed, or a disk failed."""

import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from regwrap.tools.scratch import SKOPEO_HOME, overlay_directory, scratch_directory
from tests.builders import put


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", f"{tmp_path}")
    return tmp_path


def test_what_a_run_made_before_its_lock_is_removed(place: Path) -> None:
    (place / "regwrap-a1_b2c3d").mkdir(mode=0o700)
    with scratch_directory():
        pass
    assert list(place.iterdir()) == []


def test_what_a_power_cut_leaves_of_a_run_is_removed(place: Path) -> None:
    """btrfs keeps skopeo's cache, which is synced, and not the mark that was made before it."""
    put(place / f"regwrap-a1_b2c3d/{SKOPEO_HOME}/cache/db", b"")
    put(place / f"regwrap-notes_1/{SKOPEO_HOME}/cache/db", b"")
    put(place / "regwrap-notes_1/own", b"")
    with scratch_directory():
        pass
    assert {path.name for path in place.iterdir()} == {"regwrap-notes_1"}
    assert (place / f"regwrap-notes_1/{SKOPEO_HOME}/cache/db").exists()


def test_what_is_of_no_run_stays(place: Path) -> None:
    (place / "regwrap-notes").mkdir()
    put(place / "regwrap-a1_b2c3d/file", b"")
    with scratch_directory():
        pass
    assert {path.name for path in place.iterdir()} == {"regwrap-notes", "regwrap-a1_b2c3d"}


def test_what_lies_beside_goes_with_a_dead_run(place: Path) -> None:
    beside = place / "elsewhere/regwrap-beside00"
    put(beside / "upper/file", b"")
    put(beside / ".regwrap-run", b"")
    put(place / "regwrap-dead0000/beside", os.fsencode(beside) + b"\n")
    put(place / "regwrap-dead0000/.regwrap-run", b"")
    with scratch_directory():
        pass
    assert [path.name for path in place.iterdir()] == ["elsewhere"]
    assert list((place / "elsewhere").iterdir()) == []


@pytest.mark.exhaustive
def test_what_threads_make_while_they_are_told_to_stop_goes_too(place: Path) -> None:
    for number in range(20):
        stopping = threading.Event()

        def make(scratch: Path, stopping: threading.Event = stopping) -> None:
            with suppress(FileNotFoundError):
                while not stopping.is_set():
                    Path(tempfile.mkdtemp(dir=scratch), "file").touch()

        def end(stopping: threading.Event = stopping, number: int = number) -> None:
            time.sleep(number / 200)  # meanwhile the directory is being removed
            stopping.set()

        with scratch_directory() as scratch:
            threads = [threading.Thread(target=make, args=(scratch,)), threading.Thread(target=end)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        with scratch_directory():
            pass
        assert list(place.iterdir()) == [], number


def test_the_error_of_the_work_is_not_hidden_by_that_of_tidying_up(place: Path, tmp_path: Path) -> None:
    def work() -> None:
        with overlay_directory(place / "upper", tmp_path) as run:
            (run / ".regwrap-run").unlink()  # so that tidying up fails
            raise ValueError("the work failed")

    with pytest.raises(ValueError, match="the work"):
        work()


def test_a_directory_that_is_not_there_is_no_place_for_temporary_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", f"{place}/absent")
    with scratch_directory() as scratch:
        assert scratch.parent == Path("/tmp")


def test_a_directory_beside_goes_where_it_can_t_be_noted(place: Path) -> None:
    with pytest.raises(FileNotFoundError), overlay_directory(place / "upper", place / "absent"):
        pass
    assert list(place.iterdir()) == []
