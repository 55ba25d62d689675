"""What fails on an open file is told with the file's name, which the kernel leaves out."""

import os
from pathlib import Path

import pytest

from regwrap.core.writing import read_at, write_all_at
from regwrap.storage.hashing import hash_at, write_all, write_all_to


def test_a_full_disk_is_told_with_the_file() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        for write in (
            lambda: write_all(file, b"x"),
            lambda: write_all_to(file.fileno(), b"x"),
            lambda: write_all_at(file.fileno(), b"x", 0),
        ):
            with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
                write()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for read in (lambda: read_at(descriptor, 1, 0), lambda: hash_at(descriptor, 0, 1)):
            with pytest.raises(IsADirectoryError) as raised:
                read()
            assert raised.value.filename == f"{tmp_path}"
    finally:
        os.close(descriptor)


def test_a_pipe_has_no_name_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as out, pytest.raises(BrokenPipeError) as raised:
        write_all(out, b"x")
    assert raised.value.filename is None
