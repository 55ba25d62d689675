"""Several threads write the volumes of a bundle; whichever is slow, and whatever goes wrong, the bytes are in order."""

import errno
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.contents import BundleContents
from regwrap.bundle.select import Selection
from regwrap.bundle.stream import streamed_bundle
from regwrap.bundle.volume_target import VolumeTarget
from regwrap.core.errors import BrokenBlobError, Interrupted
from regwrap.core.interruption import handle_signals, is_interrupted, let_signals_be
from regwrap.core.listener import SILENT, Listener
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import flip, open_below, put, truncate
from tests.bundles import Part, packed
from tests.lost import lose
from tests.told import Told

PIECE = 1 << 20  # what one thread has at a time
SIZES = (0, 1, 511, 512, 513, 4096, 70_000, PIECE - 512, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 77, 3, 900_000)


def made(root: Path, sizes: Sequence[int] = SIZES) -> Selection:
    storage, chance, blobs = Storage(root), random.Random(1), dict[Digest, int]()
    for number, size in enumerate(sizes):
        data = chance.randbytes(size) if size < 8 else number.to_bytes(8, "big") + chance.randbytes(size - 8)
        digest = Digest.of(data)
        blobs[digest] = size
        put(storage.blob_path(digest), data)
    contents = BundleContents(images=(), repositories=(), blobs=tuple(blobs.items()))
    return Selection(storage=storage, contents=contents, users={digest: f"{digest.short}:1" for digest in blobs})


def whole(selection: Selection) -> bytes:
    blobs = [selection.storage.blob_path(digest) for digest, _size in selection.contents.blobs]
    root = selection.storage.root
    parts = [Part(f"{path.relative_to(root)}", path.read_bytes()) for path in blobs]
    return packed([Part("bundle.json", selection.contents.to_json()), *parts])


def write(selection: Selection, output: Path, size: int, listener: Listener = SILENT, *, hashed: bool = True) -> None:
    with streamed_bundle(selection, VolumeTarget(output=output, size=size), listener, hashed=hashed):
        pass


def came(output: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(output.parent.glob(f"{output.name}.[0-9]*")))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out/v.tar"


@pytest.fixture(scope="module")
def selection(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    return made(tmp_path_factory.mktemp("relay") / "archive")


@pytest.mark.parametrize("size", [40_000, PIECE, PIECE + 13, 10**9])
@pytest.mark.parametrize("hashed", [True, False])
def test_the_volumes_are_the_bundle(selection: Selection, out: Path, size: int, *, hashed: bool) -> None:
    told = Told()
    told.expect("package", selection.contents.blob_bytes)
    write(selection, out, size, told, hashed=hashed)
    assert came(out) == whole(selection)
    assert told.done == [selection.contents.blob_bytes]


def test_it_is_the_same_whoever_writes_first(selection: Selection, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first piece waits until a later one is written."""
    real, later, lock, begun = os.pwrite, threading.Event(), threading.Lock(), list[int]()

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        with lock:
            begun.append(threading.get_ident())
            is_first = len(begun) == 1
        if is_first:
            assert later.wait(60), "nobody else writes"
        count = real(descriptor, data, offset)
        if begun[0] != threading.get_ident():
            later.set()
        return count

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        write(selection, out, 300_000)
    assert came(out) == whole(selection)


def test_a_rotten_blob_is_named_beside_one_that_was_cut(tmp_path: Path, out: Path) -> None:
    """Both have to be repaired, wherever they lie: in one piece, in two that follow each other, far from each other."""
    for rotten, cut in ((2, 3), (5, 12), (7, 8), (1, 13), (9, 10)):
        selection = made(tmp_path / f"archive-{rotten}-{cut}")
        blobs = [digest for digest, _size in selection.contents.blobs]
        wrong = [blobs[rotten], blobs[cut]]
        for digest, damage in zip(wrong, (flip, truncate), strict=True):
            damage(selection.storage.blob_path(digest))
        with pytest.raises(BrokenBlobError) as told:
            write(selection, out, 10**6)
        assert [line.partition("blob ")[2].split()[0] for line in told.value.problems] == [f"{d}" for d in wrong]
        assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("number", range(1, 13))
@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_whichever_blob_is_damaged_is_named_and_nothing_is_left(
    tmp_path: Path, out: Path, number: int, damage: Callable[[Path], None]
) -> None:
    selection = made(tmp_path / "archive")
    digest = selection.contents.blobs[number][0]
    damage(selection.storage.blob_path(digest))
    with pytest.raises(BrokenBlobError, match="is damaged; no bundle was written") as told:
        write(selection, out, 10**6)
    assert [f"{digest}" in line for line in told.value.problems] == [True]
    assert list(out.parent.iterdir()) == []
    assert open_below(tmp_path / "archive/docker") == []
    assert not any(thread.name.startswith("relay") for thread in threading.enumerate())


def test_a_blob_that_the_disk_does_not_give_is_named(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = made(tmp_path / "archive")
    path = selection.storage.root / layout.blob_path(selection.contents.blobs[11][0])
    lose(monkeypatch, path, calls=("preadv",))
    with pytest.raises(BrokenBlobError) as told:
        write(selection, out, 10**6)
    assert told.value.problems == (f"{path} cannot be read: Input/output error",)


def test_a_rotten_blob_is_named_beside_one_that_the_disk_does_not_give(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they lie in one piece, or one thread still hashes the one when the other reads the next."""
    sizes = (4 * PIECE, 5000, 3 * PIECE, 5000)
    selection = made(tmp_path / "archive", sizes)
    rotten, lost = (selection.storage.blob_path(selection.contents.blobs[number][0]) for number in (1, 2))
    flip(rotten)
    lose(monkeypatch, lost, calls=("preadv",))
    for _ in range(5):
        with pytest.raises(BrokenBlobError) as told:
            write(selection, out, 10**6)
        first, *others = told.value.problems
        assert f"{selection.contents.blobs[1][0]} does not match its digest" in first
        assert others in ([], [f"{lost} cannot be read: Input/output error"])  # the other one may not be read any more


def test_why_a_blob_cannot_be_opened_is_told(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection, real = made(tmp_path / "archive"), Storage.open_blob
    digest = selection.contents.blobs[4][0]

    def open_blob(storage: Storage, wanted: Digest) -> int:
        if wanted == digest:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{storage.blob_path(wanted)}")
        return real(storage, wanted)

    monkeypatch.setattr(Storage, "open_blob", open_blob)
    with pytest.raises(BrokenBlobError) as told:
        write(selection, out, 10**6)
    (problem,) = told.value.problems
    assert problem.startswith(f"blob {digest} cannot be read: ")
    assert "Permission denied" in problem


def test_of_a_blob_that_grows_meanwhile_its_own_bytes_are_taken(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody appends to it would move all that follows."""
    selection, real = made(tmp_path / "archive"), os.preadv
    expected = whole(selection)

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        with Path(f"/proc/self/fd/{descriptor}").readlink().open("ab") as file:
            file.write(b"more")
        return real(descriptor, buffers, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        write(selection, out, 10**6)
    assert came(out) == expected


class Counting:
    """How many bytes of blobs were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails_at: int = -1) -> None:
        self.written, self._calls, self._fails_at, self._real = 0, 0, fails_at, os.pwrite
        self._lock = threading.Lock()
        monkeypatch.setattr(os, "pwrite", self.pwrite)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        with self._lock:
            self._calls += 1
            is_full = self._calls == self._fails_at
            self.written += len(data)
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._real(descriptor, data, offset)


def test_behind_a_rotten_blob_no_more_is_written_than_was_on_its_way(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a release of a hundred gigabytes all the rest would be written to be thrown away."""
    selection = made(tmp_path / "archive", (1000, *[3 * PIECE + n for n in range(8)]))
    flip(selection.storage.blob_path(selection.contents.blobs[0][0]))
    counting = Counting(monkeypatch)
    with pytest.raises(BrokenBlobError):
        write(selection, out, 10**9)
    assert counting.written <= 3 * PIECE


def test_where_one_write_failed_the_others_end(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = made(tmp_path / "archive", [3 * PIECE + n for n in range(8)])
    counting = Counting(monkeypatch, fails_at=2)
    with pytest.raises(OSError, match="No space left"):
        write(selection, out, 10**9)
    assert counting.written <= 5 * PIECE


@pytest.fixture
def signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    handle_signals()
    yield
    let_signals_be()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_signal_ends_it_with_what_was_on_its_way(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = made(tmp_path / "archive", [3 * PIECE + n for n in range(12)])
    counting, first, main = Counting(monkeypatch), threading.Lock(), threading.get_ident()

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        if first.acquire(blocking=False):
            signal.pthread_kill(main, signal.SIGTERM)
        while not is_interrupted():
            time.sleep(0.001)
        return counting.pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(Interrupted):
        write(selection, out, 10**9)
    assert counting.written <= 12 * PIECE
    assert list(out.parent.iterdir()) == []
    assert not any(thread.name.startswith("relay") for thread in threading.enumerate())


@pytest.mark.parametrize("after", [0, 3, 8])
def test_a_disk_that_gets_full_ends_all_threads_and_leaves_nothing(
    selection: Selection, out: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    real, written = os.pwrite, list[int]()

    def pwrite(descriptor: int, data: Any, offset: int) -> int:
        written.append(offset)
        if len(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space left") as told:
        write(selection, out, 10**6)
    assert f"{told.value.filename}".startswith(f"{out}.0")
    assert list(out.parent.iterdir()) == []
    assert not any(thread.name.startswith("relay") for thread in threading.enumerate())
