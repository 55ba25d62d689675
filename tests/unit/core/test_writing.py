"""What fails on an open file is told with the file's name, which the kernel leaves out."""

import os
from functools import partial
from pathlib import Path

import pytest

from regwrap.core.writing import read_at, write_all_at
from regwrap.storage.hashing import hash_at, write_all, write_all_to


def test_a_full_disk_is_told_with_the_file() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file:
        descriptor = file.fileno()
        for write in (
            partial(write_all, file),
            partial(write_all_to, descriptor),
            partial(write_all_at, descriptor, position=0),
        ):
            with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
                write(data=b"x")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for read in (partial(read_at, descriptor, 1, 0), partial(hash_at, descriptor, 0, 1)):
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
