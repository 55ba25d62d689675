"""What fails on an open file is told with the file's name, which the kernel leaves out."""

import errno
import io
import os
from functools import partial
from pathlib import Path

import pytest

from regwrap.core.writing import (
    is_there,
    name_file,
    named_on_error,
    read_at,
    read_file,
    status_of,
    temporary_file,
    write_all_at,
    write_file,
)
from regwrap.storage.hashing import hash_at, write_all, write_all_to
from regwrap.storage.space import free_space
from regwrap.storage.tree import Tree


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


def test_what_the_disk_takes_in_parts_is_whole_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, position: pwrite(file, data[:3], position))
    with (tmp_path / "file").open("wb", buffering=0) as file:
        write_all_at(file.fileno(), b"0123456789", 2)
    assert (tmp_path / "file").read_bytes() == b"\0\0" + b"0123456789"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for read in (partial(read_at, descriptor, 1, 0), partial(hash_at, descriptor, 0, 1)):
            with pytest.raises(IsADirectoryError) as raised:
                read()
            assert raised.value.filename == f"{tmp_path}"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("call", ["fstat", "scandir", "statvfs"])
def test_a_file_system_that_gives_nothing_any_more_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Of an open directory xfs does not say even what it is; Python says the descriptor's number, if anything."""

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error", *([descriptor] if call != "fstat" else []))

    tree = Tree(tmp_path)
    descriptor = tree.descriptor

    def ask() -> object:
        asking = {"fstat": status_of, "statvfs": free_space}
        return tree.entries(".") if call == "scandir" else asking[call](descriptor)

    with monkeypatch.context() as failed:
        failed.setattr(os, call, failing)
        with pytest.raises(OSError, match="Input/output error") as raised:
            ask()
    assert raised.value.filename == f"{tmp_path}"


def test_where_no_name_is_known_what_failed_is_told_without_one() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as raised:
        read_at(10**6, 1, 0)
    assert raised.value.filename is None
    error = OSError(errno.EIO, "Input/output error")
    name_file(error, io.BytesIO())  # as one that stands for several files
    assert error.filename is None


def test_a_pipe_has_no_name_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as out, pytest.raises(BrokenPipeError) as raised:
        write_all(out, b"x")
    assert raised.value.filename is None


@pytest.mark.parametrize("mode", ["wb", "w", "r+b"])
def test_what_a_full_disk_refuses_when_the_file_closes_is_told_with_its_name(mode: str) -> None:
    data: bytes | str = "x" if mode == "w" else b"x"
    with (
        pytest.raises(OSError, match=r"No space left on device: '/dev/full'"),
        named_on_error(open("/dev/full", mode)) as file,
    ):
        file.write(data)
    assert file.closed


def test_a_small_file_is_written_whole_or_told_with_its_name(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "é")
    assert read_file(tmp_path / "a") == b"\xc3\xa9"
    for data in (b"x", "x"):
        with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
            write_file(Path("/dev/full"), data)


def test_a_file_without_a_name_is_told_with_its_directory(tmp_path: Path) -> None:
    with temporary_file(tmp_path) as file, pytest.raises(OSError, match=f": '{tmp_path}'$"):
        write_all_at(file.fileno(), b"x", 2**63 - 1)
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/none"):
        temporary_file(tmp_path / "none")


def test_what_cannot_be_told_is_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    assert is_there(tmp_path / "file")
    assert is_there(tmp_path / "loop")
    assert not is_there(tmp_path / "none")
    assert not is_there(tmp_path / "file/none")
    assert not is_there(tmp_path / ("x" * 300))
    with pytest.raises(OSError, match=f"Too many levels of symbolic links: '{tmp_path}/loop/x'"):
        is_there(tmp_path / "loop/x")
