"""A part of one file into another: by the kernel where it can, by reading and writing where it cannot."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regwrap.core.errors import IntegrityError
from regwrap.storage.hashing import append_range, copy_range
from tests.builders import put


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(put(tmp_path / "blob", bytes(range(200))), os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=["a file system of its own", "the same"])
def dest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The kernel copies no ranges between a file in memory and any other (copy_file_range(2), EXDEV)."""
    same = request.param == "the same"
    descriptor = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT) if same else os.memfd_create("copy")
    yield descriptor
    os.close(descriptor)


def test_ranges_come_to_their_places(source: int, dest: int) -> None:
    copy_range(source, 50, 100, dest, 7)
    copy_range(source, 0, 7, dest, 0)
    assert os.pread(dest, 1000, 0) == bytes(range(7)) + bytes(range(50, 150))


def test_one_comes_behind_the_other(source: int, dest: int) -> None:
    os.write(dest, b"head")
    append_range(source, 50, 100, dest)
    os.write(dest, b"-")
    append_range(source, 0, 3, dest)
    assert os.pread(dest, 1000, 0) == b"head" + bytes(range(50, 150)) + b"-" + bytes(range(3))


def test_a_file_that_became_shorter_is_no_endless_copy(source: int, dest: int) -> None:
    with pytest.raises(IntegrityError, match="was truncated while it was read"):
        copy_range(source, 150, 51, dest, 0)


def test_a_disk_that_fails_is_not_tried_in_another_way(source: int, tmp_path: Path) -> None:
    with put(tmp_path / "dest", b"").open("rb") as dest, pytest.raises(OSError, match="Bad file descriptor"):
        copy_range(source, 0, 1, dest.fileno(), 0)
