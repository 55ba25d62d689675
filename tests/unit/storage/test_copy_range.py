"""A part of one file into another: by the kernel where it can, by reading and writing where it cannot."""

import errno
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from regwrap.core.errors import IntegrityError
from regwrap.core.writing import UnreadableError
from regwrap.storage.hashing import PIECE_BYTES, append_range, copy_range
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


def test_a_kernel_that_copies_less_than_it_is_asked_for_is_asked_again(
    source: int, dest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def a_little(source: int, out: int, count: int, offset: int, to: int) -> int:
        asked.append(count)
        return os.pwrite(out, os.pread(source, min(count, 40), offset), to)

    monkeypatch.setattr(os, "copy_file_range", a_little)
    copy_range(source, 50, 100, dest, 7)
    assert os.pread(dest, 1000, 7) == bytes(range(50, 150))
    assert asked == [100, 60, 20]


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_what_the_kernel_leaves_off_in_the_middle_of_is_read_and_written_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    data = random.Random(0).randbytes(2 * PIECE_BYTES + 100)
    calls: list[int] = []

    def half(source: int, out: int, count: int, offset: int, to: int) -> int:
        calls.append(count)
        if len(calls) > 1:
            raise OSError(number, os.strerror(number))
        return os.pwrite(out, os.pread(source, 10, offset), to)

    monkeypatch.setattr(os, "copy_file_range", half)
    with put(tmp_path / "from", data).open("rb") as source, put(tmp_path / "to", b"head").open("r+b") as dest:
        copy_range(source.fileno(), 5, len(data) - 7, dest.fileno(), 4)
    assert (tmp_path / "to").read_bytes() == b"head" + data[5:-2]
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("number", "calls", "named"),
    [
        (errno.EIO, ("copy_file_range", "preadv"), "blob"),
        (errno.ESTALE, ("copy_file_range", "preadv"), "blob"),
        (errno.EIO, ("copy_file_range", "pwrite"), "full"),
        (errno.ENOSPC, ("copy_file_range",), "full"),
        (errno.EDQUOT, ("copy_file_range",), "full"),
        (errno.EROFS, ("copy_file_range",), "full"),
    ],
)
def test_of_a_copy_that_fails_the_file_is_named_that_fails(
    source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, calls: Sequence[str], named: str
) -> None:
    """And what cannot be read is told from what cannot be written, though the kernel does not tell: of a blob the first
    is damage, the second is of the disk that is written to."""

    def failing(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    for call in calls:
        monkeypatch.setattr(os, call, failing)
    with (tmp_path / "full").open("wb") as dest, pytest.raises(OSError, match=os.strerror(number)) as raised:
        copy_range(source, 0, 1, dest.fileno(), 0)
    assert raised.value.filename == f"{tmp_path / named}"
    assert isinstance(raised.value, UnreadableError) is (named == "blob")


def test_a_file_that_became_shorter_is_no_endless_copy(source: int, dest: int) -> None:
    with pytest.raises(IntegrityError, match="was truncated while it was read"):
        copy_range(source, 150, 51, dest, 0)


def test_a_disk_that_fails_is_not_tried_in_another_way(source: int, tmp_path: Path) -> None:
    with put(tmp_path / "dest", b"").open("rb") as dest, pytest.raises(OSError, match="Bad file descriptor"):
        copy_range(source, 0, 1, dest.fileno(), 0)
