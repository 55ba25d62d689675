"""A bundle through a pipe is the same bytes, and what is cut off or altered anywhere is refused and changes nothing."""

import fcntl
import gc
import io
import os
import random
import select
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.contents import BundleContents, links_end
from regwrap.bundle.delta import since
from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.examine_incoming import verify_incoming
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.opened import opened_bases
from regwrap.bundle.pipe import PipeTarget
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import read_releases
from regwrap.bundle.select import Selection, select_images
from regwrap.bundle.stream import Sink, streamed_bundle
from regwrap.commands.deploy import DeployReport, deploy_bundle, deploy_incoming
from regwrap.core.errors import ImagesFailedError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest, Platform
from regwrap.core.moves import Existing
from regwrap.core.pipes import widen
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import (
    flip,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    put,
    snapshot,
    storage_problems,
    truncate,
)
from tests.bundles import BLOCK, Part, contents_of, listed, member, older, packed, parts_of, write_bundle
from tests.lost import lose
from tests.told import Told

BIG = random.Random(3).randbytes(3_000_000)  # more than a buffer has
BASE = make_layer("base")
IMAGES = {
    "app:1": make_image("app", layers=[BASE, BIG]),
    "kept:1": make_image("kept", layers=[BASE, b""]),
    "multi:1": make_multi_image("multi"),
}
OPTIONS = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
SMALL = {"kept:1": IMAGES["kept:1"], "multi:1": IMAGES["multi:1"]}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_storage(tmp_path_factory.mktemp("pipes") / "archive", IMAGES)


def whole(archive: Path, *names: str) -> bytes:
    return packed(parts_of(contents_of(archive, *names), archive))


def selected(root: Path, *names: str) -> Selection:
    return select_images(Storage(root), tuple(map(listed, names)))


def streamed(selection: Selection, *, hashed: bool = True) -> bytes:
    out = io.BytesIO()
    with streamed_bundle(selection, PipeTarget(out), Silent(), hashed=hashed):
        pass
    return out.getvalue()


def deploy(data: bytes, root: Path, *, existing: Existing = Existing.FAIL, dry_run: bool = False) -> DeployReport:
    options = ImportOptions(existing=existing, dry_run=dry_run, lock_timeout=0)
    return deploy_incoming(io.BytesIO(data), Path("-"), root, options, Silent())


def images_and_links(root: Path) -> dict[str, tuple[str, int, int, str]]:
    return {path: state for path, state in snapshot(root).items() if not path.endswith((".note", ".regwrap/lock"))}


# --- into a pipe


@pytest.mark.slow
def test_what_is_streamed_is_the_bundle(archive: Path) -> None:
    assert streamed(selected(archive, *IMAGES)) == whole(archive, *IMAGES)
    assert streamed(selected(archive)) == whole(archive)
    assert streamed(selected(archive, *IMAGES), hashed=False) == whole(archive, *IMAGES)


def test_before_the_end_of_the_block_it_is_no_bundle(archive: Path) -> None:
    out = io.BytesIO()
    with (
        pytest.raises(ToolError, match="meanwhile"),
        streamed_bundle(selected(archive, *SMALL), PipeTarget(out), Silent(), hashed=True),
    ):
        raise ToolError("something is wrong meanwhile")
    with pytest.raises(IntegrityError, match="cut off"):
        verify_incoming(io.BytesIO(out.getvalue()), None, SILENT)


def test_a_blob_that_is_rotten_ends_the_stream(tmp_path: Path) -> None:
    """It is hashed on its way, so it is found when it is gone already; what came is no bundle."""
    root = make_storage(tmp_path / "rotten", SMALL)
    selection = selected(root, *SMALL)
    flip(root / layout.blob_path(Digest.of(BASE)))
    out = io.BytesIO()
    with (
        pytest.raises(IntegrityError, match="is damaged") as told,
        streamed_bundle(selection, PipeTarget(out), Silent(), hashed=True),
    ):
        pass
    assert f"{Digest.of(BASE)}" in told.value.problems[0]
    assert type(told.value) is IntegrityError  # who catches the other one would begin anew, in the same pipe
    truncate(root / layout.blob_path(Digest.of(BASE)))
    with pytest.raises(IntegrityError):
        streamed(selection, hashed=False)


def test_behind_a_rotten_blob_nothing_more_is_sent(large: Selection, tmp_path: Path) -> None:
    storage, blobs = Storage(tmp_path), dict[Digest, int]()
    for number in range(1, 5):
        data = bytes([number]) * (2 << 20)
        put(storage.blob_path(Digest.of(data)), data)
        blobs[Digest.of(data)] = len(data)
    contents = replace(large.contents, blobs=tuple(blobs.items()))
    selection = Selection(storage=storage, contents=contents, users=dict.fromkeys(blobs, "app:1"))
    flip(storage.blob_path(next(iter(blobs))))
    out = io.BytesIO()
    with (
        pytest.raises(IntegrityError, match="is damaged"),
        streamed_bundle(selection, PipeTarget(out), SILENT, hashed=True),
    ):
        pass
    assert len(out.getvalue()) < 3 << 20


def test_what_goes_beside_a_bundle_is_there_before_its_first_byte(archive: Path) -> None:
    """Who reads the pipe may need its signature then."""
    out, told = io.BytesIO(), list[tuple[Digest, int]]()

    @contextmanager
    def beside(release: Digest) -> Iterator[None]:
        told.append((release, out.tell()))
        yield

    selection = selected(archive, *SMALL)
    with streamed_bundle(selection, PipeTarget(out, beside), SILENT, hashed=True):
        pass
    assert told == [(selection.contents.id, 0)]


class Full:
    """Takes blobs out of their files, and none before three more are on their way."""

    can_repeat = True

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def written(self, contents: BundleContents) -> Iterator[Sink]:
        del contents
        yield Sink(write=lambda _data: None, send=self.send)

    def send(self, _descriptor: int, _offset: int, _size: int) -> Iterator[int]:
        while len(open_below(self.root)) < 4:
            time.sleep(0.001)
        yield 0
        raise BrokenPipeError


def test_nothing_stays_open_of_what_was_on_its_way(tmp_path: Path) -> None:
    images = {f"app-{n}:1": make_image(f"{n}", layers=[random.Random(n).randbytes(300_000)]) for n in range(8)}
    root = make_storage(tmp_path / "archive", images)
    target = Full(root / "docker/registry/v2/blobs")
    with pytest.raises(BrokenPipeError), streamed_bundle(selected(root, *images), target, SILENT, hashed=False):
        pass
    gc.collect()
    assert open_below(target.root) == []


def test_a_rotten_blob_is_named_beside_one_that_was_cut(tmp_path: Path) -> None:
    """Both have to be repaired, and the first of them ends the stream."""
    root = make_storage(tmp_path / "rotten", SMALL)
    selection = selected(root, *SMALL)
    first, *_others, last = (digest for digest, _size in selection.contents.blobs)
    flip(root / layout.blob_path(first))
    truncate(root / layout.blob_path(last))
    with pytest.raises(IntegrityError, match="is damaged") as told:
        streamed(selection)
    assert [line.partition("blob ")[2].partition(" ")[0] for line in told.value.problems] == [f"{first}", f"{last}"]


@pytest.mark.parametrize("calls", [("preadv",), ("splice", "preadv")])
def test_a_blob_that_the_disk_does_not_give_ends_the_stream_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Sequence[str]
) -> None:
    root = make_storage(tmp_path / "archive", IMAGES)
    selection, path = selected(root, *IMAGES), root / layout.blob_path(Digest.of(BIG))
    lose(monkeypatch, path, calls=calls)
    reader, writer = os.pipe()
    with ThreadPoolExecutor(1) as pool, open(reader, "rb") as taken:
        came = pool.submit(taken.read)
        with (
            open(writer, "wb", buffering=0) as out,
            pytest.raises(IntegrityError, match=rf"{root} is damaged") as told,
            streamed_bundle(selection, PipeTarget(out), Silent(), hashed=True),
        ):
            pass
        assert len(came.result()) < selection.contents.tar_bytes
    assert told.value.problems == (f"{path} cannot be read: Input/output error",)


def test_every_byte_of_a_stream_is_counted_for_who_waits(archive: Path) -> None:
    told, selection = Told(), selected(archive, *IMAGES)
    told.expect("package", selection.contents.blob_bytes)
    with streamed_bundle(selection, PipeTarget(io.BytesIO()), told, hashed=True):
        pass
    assert told.done == [selection.contents.blob_bytes]


def test_a_reader_that_goes_away_is_told_with_how_far_it_came(archive: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb", buffering=0) as out,
        pytest.raises(ToolError, match=r"the reader of the bundle exited after 0 of [\d,]+ bytes"),
        streamed_bundle(selected(archive, *IMAGES), PipeTarget(out), Silent(), hashed=True),
    ):
        pass


def through_pipe(selection: Selection, *, hashed: bool = True, waits: bool = True) -> tuple[bytes, RegwrapError | None]:
    """What came out at the other end, and what it was told to have gone wrong."""
    reader, writer = os.pipe()
    os.set_blocking(writer, waits)
    told = None
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader, "rb") as end:
        came = pool.submit(end.read)
        with os.fdopen(writer, "wb", buffering=0) as out:
            try:
                with streamed_bundle(selection, PipeTarget(out), Silent(), hashed=hashed):
                    pass
            except RegwrapError as error:
                told = error
        return came.result(), told


@pytest.mark.slow
@pytest.mark.parametrize(("hashed", "waits"), [(True, True), (False, True), (True, False)])
def test_what_comes_out_of_a_pipe_is_the_bundle(archive: Path, *, hashed: bool, waits: bool) -> None:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    assert through_pipe(selected(archive, *IMAGES), hashed=hashed, waits=waits) == (whole(archive, *IMAGES), None)
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate])
def test_a_large_blob_that_is_damaged_has_not_made_a_bundle(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    root = make_storage(tmp_path / "rotten", IMAGES)
    selection = selected(root, *IMAGES)
    damage(root / layout.blob_path(Digest.of(BIG)))
    came, told = through_pipe(selection)
    assert isinstance(told, IntegrityError)
    assert f"app:1: blob {Digest.of(BIG)} does not match its digest" in told.problems[0]
    with pytest.raises(IntegrityError):
        verify_incoming(io.BytesIO(came), None, SILENT)


def test_a_reader_that_goes_away_within_a_large_blob_is_told_so(archive: Path) -> None:
    gc.collect()
    files = len(os.listdir("/proc/self/fd"))
    reader, writer = os.pipe()

    def go_away() -> None:
        came = 0
        while came < 100_000:
            came += len(os.read(reader, 100_000))
        os.close(reader)

    with ThreadPoolExecutor(1) as pool, os.fdopen(writer, "wb", buffering=0) as out:
        gone = pool.submit(go_away)
        with (
            pytest.raises(ToolError, match=r"the reader of the bundle exited after [\d,]+ of [\d,]+ bytes") as told,
            streamed_bundle(selected(archive, *IMAGES), PipeTarget(out), Silent(), hashed=True),
        ):
            pass
        gone.result()
    assert int(told.value.message.split("after ")[1].split()[0].replace(",", "")) >= 100_000
    del told  # its frames have files
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("before", [4096, 1 << 16, 1 << 20])
def test_a_pipe_takes_much_at_once_at_whichever_end(archive: Path, before: int) -> None:
    """Each byte of a release goes through it: a small one costs as many switches as it has pages."""
    for at_reader in (True, False):
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, before)
        with os.fdopen(reader, "rb") as came, os.fdopen(writer, "wb", buffering=0) as out:
            if at_reader:
                widen(came)
            else:
                with PipeTarget(out).written(contents_of(archive, *SMALL)):
                    pass
            assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) == 1 << 20


def test_a_pipe_that_takes_more_at_once_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = list[tuple[int, int]](), fcntl.fcntl

    def larger(descriptor: int, command: int, size: int = 0) -> int:
        if command == fcntl.F_GETPIPE_SZ:
            return 4 << 20  # only root can make one
        calls.append((command, size))
        return real(descriptor, command, size)

    reader, writer = os.pipe()
    monkeypatch.setattr(fcntl, "fcntl", larger)
    with os.fdopen(reader, "rb") as came, os.fdopen(writer, "wb"):
        widen(came)
    assert calls == []


def test_what_is_no_pipe_is_left_alone() -> None:
    with io.BytesIO() as memory, tempfile.TemporaryFile() as file:
        widen(memory)
        widen(file)


class GoesAway(io.BytesIO):
    """A reader that takes so many bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def write(self, data: Any) -> int:
        if self.tell() + len(memoryview(data)) > self.most:
            raise BrokenPipeError
        return super().write(data)


@pytest.mark.slow
def test_how_far_a_reader_came_that_went_away_later_is_told(archive: Path) -> None:
    out, size = GoesAway(1_500_000), len(whole(archive, *IMAGES))
    with (
        pytest.raises(ToolError) as told,
        streamed_bundle(selected(archive, *IMAGES), PipeTarget(out), Silent(), hashed=True),
    ):
        pass
    assert told.value.message == f"the reader of the bundle exited after {out.tell():,} of {size:,} bytes"
    assert out.tell() > 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Selection:
    """With a blob that has more than lies between who reads and who writes."""
    data, storage = bytes(7 << 20), Storage(tmp_path_factory.mktemp("large"))
    digest = Digest.of(data)
    put(storage.blob_path(digest), data)
    contents = BundleContents(images=(), repositories=(), blobs=((digest, len(data)),))
    return Selection(storage=storage, contents=contents, users={digest: "large:1"})


@pytest.mark.slow
def test_a_stream_of_any_size_goes_through_a_few_buffers(large: Selection) -> None:
    assert len(streamed(large)) == large.contents.tar_bytes


class Watching(Silent):
    """Reads a pipe when some bytes were counted, and looks whether as many had gone into it."""

    def __init__(self, reader: int) -> None:
        self.reader = reader
        self.counted = self.came = self.ahead = 0
        self.began, self.lock = threading.Event(), threading.Lock()

    def on_bytes(self, count: int, /) -> None:
        with self.lock:
            self.counted += count
            waiting = int.from_bytes(fcntl.ioctl(self.reader, termios.FIONREAD, bytes(4)), sys.byteorder)
            self.ahead = max(self.ahead, self.counted - self.came - waiting)
        if count:
            self.began.set()

    def read(self) -> None:
        self.began.wait()
        is_open = True
        while is_open:
            select.select([self.reader], [], [])
            with self.lock:
                count = len(os.read(self.reader, 1 << 16))
                self.came += count
                is_open = count > 0


def test_what_has_not_left_is_not_counted(large: Selection) -> None:
    """Who sends a layer of some gigabytes to a site for hours would be told at once that all was done."""
    reader, writer = os.pipe()
    watching = Watching(reader)
    with ThreadPoolExecutor(1) as pool, os.fdopen(reader, "rb"):
        reading = pool.submit(watching.read)
        with (
            os.fdopen(writer, "wb", buffering=0) as out,
            streamed_bundle(large, PipeTarget(out), watching, hashed=True),
        ):
            pass
        reading.result()
    assert (watching.ahead, watching.counted) == (0, large.contents.blob_bytes)


def test_who_reads_ahead_for_a_reader_that_went_away_ends_too(large: Selection) -> None:
    """Else the run would wait for ever."""
    with (
        pytest.raises(ToolError, match="the reader of the bundle exited after 0 of"),
        streamed_bundle(large, PipeTarget(GoesAway(0)), Silent(), hashed=False),
    ):
        pass
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


@pytest.mark.slow
def test_of_a_blob_that_grows_meanwhile_its_own_bytes_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody appends to it would move all that follows."""
    root, real = make_storage(tmp_path / "archive", IMAGES), os.preadv
    expected, selection = whole(root, *IMAGES), selected(root, *IMAGES)

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        with Path(f"/proc/self/fd/{descriptor}").readlink().open("ab") as file:
            file.write(b"more")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    assert streamed(selection) == expected


def test_a_terminal_gets_no_bundle(archive: Path) -> None:
    master, terminal = os.openpty()
    with (
        os.fdopen(terminal, "wb", buffering=0) as out,
        pytest.raises(UsageError, match="is a terminal"),
        streamed_bundle(selected(archive, *SMALL), PipeTarget(out), Silent(), hashed=True),
    ):
        pass
    os.close(master)


# --- out of a pipe


def test_what_is_said_of_it_is_what_is_said_of_the_file(archive: Path, tmp_path: Path) -> None:
    path = put(tmp_path / "bundle.tar", whole(archive, *IMAGES))
    entries = (listed("app:1"), listed("other:1"))
    of_file = verify_bundle(path, entries, SILENT)
    of_pipe = verify_incoming(io.BytesIO(path.read_bytes()), entries, SILENT)
    assert replace(of_pipe, path=path) == of_file
    assert of_pipe.inventory == of_file.inventory
    assert (of_pipe.id, len(of_pipe.differences)) == (of_file.id, 3)


def test_the_same_is_wrong_in_a_bundle_from_a_pipe(archive: Path, tmp_path: Path) -> None:
    """A manifest whose first byte has gone is damaged and not missing; a lie about platforms is seen by the config."""
    contents = contents_of(archive, "app:1", "kept:1")
    image, other = contents.images
    lying = replace(contents, images=(replace(image, platforms=(Platform.parse("linux/arm64"),)), other))
    parts = parts_of(lying, archive)
    raw = IMAGES["kept:1"].raw
    data = packed(replace(part, data=b"[" + raw[1:]) if part.data == raw else part for part in parts)
    of_file = verify_bundle(put(tmp_path / "bundle.tar", data), None, SILENT).problems
    assert verify_incoming(io.BytesIO(data), None, SILENT).problems == of_file
    assert [line.partition(": ")[0] for line in of_file] == [
        "app:1",
        "kept:1",
        f"blob {Digest.of(raw)} does not match its digest ({layout.blob_path(Digest.of(raw))})",
    ]
    assert "disagree about platforms" in of_file[0]


def test_what_a_delta_requires_is_hashed_where_it_lies(archive: Path, tmp_path: Path) -> None:
    """Else a site would be told that all is well, and deploy would find it is not."""
    first, second = contents_of(archive, *SMALL), contents_of(archive, *IMAGES)
    delta = since(second, [older(first)])
    data = bytearray(packed(parts_of(delta, archive)))
    own = Digest.of(BIG)
    data[data.index(BIG[:64])] ^= 1
    site = make_storage(tmp_path / "site", SMALL)
    rotten = [digest for digest, _size in first.blobs if digest not in set(Storage(site).revisions("kept"))][:4]
    for digest in rotten:
        flip(site / layout.blob_path(digest))
    with opened_bases([site], lock_timeout=0, listener=Silent()) as bases:
        report = verify_incoming(io.BytesIO(data), None, SILENT, bases)
    lines = [f"blob {d} does not match its digest ({layout.blob_path(d)})" for d in sorted([own, *rotten])]
    assert [line for line in report.problems if line.startswith("blob ")] == lines
    assert list(report.inventory.blobs) == [digest for digest, _size in second.blobs]


def test_a_check_of_a_pipe_keeps_no_layer(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a release of a hundred gigabytes manifests and configs are looked at later, and have room in any /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}")
    kept = list[int]()

    class Looking(Silent):
        def on_bytes(self, _count: int, /) -> None:
            files = (path for path in Path("/proc/self/fd").iterdir())
            ours = (path for path in files if f"{os.path.realpath(path)}".startswith(f"{tmp_path}/"))
            kept.extend(os.fstat(int(path.name)).st_size for path in ours)

    assert verify_incoming(io.BytesIO(whole(archive, *IMAGES)), None, Looking()).problems == ()
    assert 0 < max(kept) < 20_000


@pytest.mark.slow
def test_a_storage_gets_the_same_from_a_pipe(archive: Path, tmp_path: Path) -> None:
    data = whole(archive, *IMAGES)
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
    of_file = deploy_bundle(put(tmp_path / "bundle.tar", data), tmp_path / "one", options, Silent())
    assert deploy(data, tmp_path / "two") == of_file
    assert images_and_links(tmp_path / "two") == images_and_links(tmp_path / "one")
    assert storage_problems(tmp_path / "two") == set()
    assert len(read_releases(Storage(tmp_path / "two").tree).releases) == 1
    assert deploy(data, tmp_path / "two").blobs_added == 0
    flip(tmp_path / "two" / layout.blob_path(Digest.of(BIG)))
    assert deploy(data, tmp_path / "two").mended == 1
    assert storage_problems(tmp_path / "two") == set()


@pytest.mark.slow
def test_a_delta_from_a_pipe_needs_the_same(archive: Path, tmp_path: Path) -> None:
    first, second = contents_of(archive, *SMALL), contents_of(archive, *IMAGES)
    delta = packed(parts_of(since(second, [older(first)]), archive))
    with pytest.raises(ImagesFailedError, match="standard input requires"):
        deploy(delta, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    site = make_storage(tmp_path / "site", SMALL)
    assert deploy(delta, site).tags_added == ("app:1",)
    assert storage_problems(site) == set()
    base = write_bundle(tmp_path / "base.tar", first, archive)
    with opened_bases([base], lock_timeout=0, listener=Silent()) as bases:
        report = verify_incoming(io.BytesIO(delta), None, SILENT, bases)
    assert (report.problems, report.notes, report.blobs) == ((), (), len(second.blobs))
    assert len(verify_incoming(io.BytesIO(delta), None, SILENT).notes) == 2


def test_where_a_bundle_was_cut_off_is_told(archive: Path) -> None:
    data, contents = whole(archive, *SMALL), contents_of(archive, *SMALL)
    front = len(member(Part("bundle.json", contents.to_json())))
    for end in (513, front - 1, front, front + 600, links_end(contents) - 1, len(data) - 1):
        with pytest.raises(IntegrityError) as told:
            verify_incoming(io.BytesIO(data[:end]), None, SILENT)
        of = front if end < front else len(data)
        assert told.value.message.endswith(f"the bundle was cut off: {end:,} of {of:,} bytes came")
        assert "send it again" in told.value.hint
    with pytest.raises(IntegrityError, match=f"something follows the end of the bundle, at byte {len(data)}"):
        verify_incoming(io.BytesIO(data + b"\0"), None, SILENT)


def test_where_a_bundle_was_altered_is_told(archive: Path) -> None:
    contents = contents_of(archive, *SMALL)
    json, *others = parts_of(contents, archive)
    blobs, links = others[: len(contents.blobs)], others[len(contents.blobs) :]
    first, last = len(member(json)), len(member(json)) + sum(len(member(blob)) for blob in blobs[:-1])
    padding = first + len(member(replace(blobs[0], data=b""))) + len(blobs[0].data)
    link, end = last + len(member(blobs[-1])), links_end(contents)
    data = packed((json, *others))
    for place, start, what in (
        (first, first, blobs[0].name),
        (padding, padding, blobs[0].name),
        (last, last, blobs[-1].name),
        (link, link, f"{links[0].name} or a link behind it"),
        (end - BLOCK, link, f"{links[0].name} or a link behind it"),
        (end, end, "the end"),
        (len(data) - 1, end, "the end"),
    ):
        altered = bytearray(data)
        altered[place] ^= 1
        with pytest.raises(IntegrityError) as told:
            verify_incoming(io.BytesIO(altered), None, SILENT)
        assert told.value.message == f"{what} is not as regwrap writes it (behind byte {start})"
        assert "damaged or was altered" in told.value.hint


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.exhaustive
def test_what_is_cut_off_anywhere_is_refused_and_nothing_is_changed(archive: Path, tmp_path: Path, seed: int) -> None:
    data, chance = whole(archive, *SMALL), random.Random(seed)
    site = make_storage(tmp_path / "site", {"other:1": make_image("other")})
    deploy(whole(archive), site)
    before = images_and_links(site)
    for end in sorted({0, 1, 512, 513, len(data) - 1, len(data) - 512, *chance.sample(range(len(data)), 12)}):
        with pytest.raises(IntegrityError):
            deploy(data[:end], site)
        assert images_and_links(site) == before
        with pytest.raises(IntegrityError):
            verify_incoming(io.BytesIO(data[:end]), None, SILENT)
    with pytest.raises(IntegrityError, match="follows the end"):
        deploy(data + b"\0", site)
    assert images_and_links(site) == before


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.exhaustive
def test_a_bit_that_was_turned_anywhere_is_found_and_nothing_is_changed(
    archive: Path, tmp_path: Path, seed: int
) -> None:
    data, chance = whole(archive, *SMALL), random.Random(seed)
    for _ in range(25):
        turned = bytearray(data)
        turned[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(RegwrapError):
            deploy(bytes(turned), tmp_path / "site")
        assert storage_problems(tmp_path / "site") == set()
        assert not (tmp_path / "site/docker").exists()
        try:
            problems = verify_incoming(io.BytesIO(turned), None, SILENT).problems
        except RegwrapError:
            continue
        assert problems


def test_what_came_damaged_is_told_by_the_name_of_the_pipe(archive: Path, tmp_path: Path) -> None:
    data = bytearray(whole(archive, *SMALL))
    data[data.index(BASE)] ^= 1
    with pytest.raises(IntegrityError, match=r"^standard input is damaged; nothing was changed"):
        deploy(bytes(data), tmp_path / "site")


def test_a_tag_of_somebody_else_is_seen_before_the_blobs_come(archive: Path, tmp_path: Path) -> None:
    site = make_storage(tmp_path / "site", {"kept:1": make_image("other")})
    data = whole(archive, *SMALL)
    pipe = io.BytesIO(data)
    with pytest.raises(UsageError, match="points to another image"):
        deploy_incoming(pipe, Path("-"), site, OPTIONS, Silent())
    assert pipe.tell() < 20_000
    assert deploy(data, site, existing=Existing.REPLACE).tags_replaced != ()


def test_a_dry_run_of_what_comes_once_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can be read only once"):
        deploy(whole(archive, *SMALL), tmp_path / "site", dry_run=True)


@pytest.mark.parametrize("data", [b"", b"x", b"{}", b"x" * 5000, bytes(5000)])
def test_anything_else_is_no_bundle(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        deploy(data, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_who_reads_a_bundle_at_any_place_says_that_a_pipe_is_none() -> None:
    with pytest.raises(UsageError, match="can't come from standard input") as raised, opened_bundle(Path("-")):
        pass
    assert "deploy and verify take it from a pipe" in raised.value.hint
