"""Blobs come in any order; a stream gets the bundle's bytes in theirs, and nothing after a blob that is lacking."""

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from regwrap.bundle.contents import BundleContents
from regwrap.bundle.in_place import BundleInPlace
from regwrap.bundle.passing import passed_bundle
from regwrap.bundle.stream import Sink
from regwrap.core.errors import IntegrityError, ToolError
from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import make_image, make_layer, make_storage
from tests.bundles import contents_of, packed, parts_of

IMAGES = {f"app:{n}": make_image(f"app {n}", layers=[make_layer(f"{n}", Random(n).randbytes(40_000))]) for n in (1, 2)}


class Taking:
    """A target that keeps what it is given; with a `limit` it is full then. `has` waits for so many bytes."""

    can_repeat = False

    def __init__(self, limit: int = 10**9) -> None:
        self.data = io.BytesIO()
        self.coming = threading.Condition()
        self.limit = limit

    @contextmanager
    def written(self, contents: BundleContents) -> Iterator[Sink]:
        del contents
        yield Sink(write=self.write)

    def write(self, data: memoryview) -> None:
        with self.coming:
            self.data.write(data)
            self.coming.notify_all()
        if self.data.tell() > self.limit:
            raise BrokenPipeError("it went away")

    def has(self, size: int, *, within: float) -> bool:
        with self.coming:
            return self.coming.wait_for(lambda: self.data.tell() >= size, within)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "archive", IMAGES)


def blobs_of(archive: Path) -> list[tuple[Digest, bytes]]:
    return [
        (Digest.of(data), data) for data in (part.data for part in parts_of(contents_of(archive, *IMAGES), archive))
    ]


def passed(archive: Path, target: Taking, fill: Callable[[BundleInPlace], None], stopping: threading.Event) -> None:
    contents = contents_of(archive, *IMAGES)
    with passed_bundle(target, contents, fill, directory=archive.parent, stopping=stopping):
        assert target.data.tell() < len(packed(parts_of(contents, archive)))  # its end is what makes it a bundle


@pytest.mark.parametrize("seed", range(4))
def test_the_stream_is_the_bundle_whatever_comes_first(archive: Path, seed: int) -> None:
    blobs, target = blobs_of(archive), Taking()
    Random(seed).shuffle(blobs)

    def fill(file: BundleInPlace) -> None:
        for digest, data in blobs:
            file.put(digest, data)

    passed(archive, target, fill, threading.Event())
    assert target.data.getvalue() == packed(parts_of(contents_of(archive, *IMAGES), archive))
    assert [path.name for path in archive.parent.iterdir()] == ["archive"]


def test_a_blob_that_fails_ends_the_stream_before_it(archive: Path) -> None:
    target, blobs = Taking(), dict(blobs_of(archive))

    def fill(file: BundleInPlace) -> None:
        first = next(iter(file.places))
        file.put(first, blobs[first])
        raise ToolError("the registry went away")

    with pytest.raises(ToolError, match="went away"):
        passed(archive, target, fill, threading.Event())
    with pytest.raises(IntegrityError, match="was not received"):
        passed(archive, target, lambda _file: None, threading.Event())


def test_a_stream_that_breaks_stops_who_brings_the_rest(archive: Path) -> None:
    stopping, target, blobs = threading.Event(), Taking(limit=2000), dict(blobs_of(archive))

    def fill(file: BundleInPlace) -> None:
        first = next(iter(file.places))
        file.put(first, blobs[first])
        assert stopping.wait(20)
        raise ToolError("regwrap is stopping")

    with pytest.raises(BrokenPipeError):
        passed(archive, target, fill, stopping)
    assert stopping.is_set()


def test_nothing_leaves_in_front_of_a_blob_that_is_still_to_come(archive: Path) -> None:
    """Where it will lie are zeros until then."""
    target, blobs = Taking(), dict(blobs_of(archive))

    def fill(file: BundleInPlace) -> None:
        first, *others = file.places
        assert not target.has(1, within=0.03)
        file.put(first, blobs[first])
        assert target.has(file.places[first].end, within=20)
        for digest in others:
            file.put(digest, blobs[digest])

    passed(archive, target, fill, threading.Event())
    assert target.data.getvalue() == packed(parts_of(contents_of(archive, *IMAGES), archive))


def test_an_error_behind_the_last_blob_leaves_no_bundle(archive: Path) -> None:
    """As of a registry that is found to have given other bytes, when all of them were there."""
    target, blobs = Taking(), dict(blobs_of(archive))

    def fill(file: BundleInPlace) -> None:
        for digest in file.places:
            file.put(digest, blobs[digest])
        assert target.has(file.places[digest].end, within=20)
        raise ToolError("it was not what it should be")

    with pytest.raises(ToolError, match="not what it should be"):
        passed(archive, target, fill, threading.Event())
    assert len(target.data.getvalue()) < len(packed(parts_of(contents_of(archive, *IMAGES), archive)))


def test_what_has_left_takes_no_room_any_more(tmp_path: Path) -> None:
    """A release that goes into volumes would need the disk twice."""
    images = {"large:1": make_image("large", layers=[Random(1).randbytes(600_000)])}
    archive, target, taken = make_storage(tmp_path / "archive", images), Taking(), list[int]()
    contents = contents_of(archive, *images)

    def fill(file: BundleInPlace) -> None:
        taken.append(file.part.descriptor)
        for digest, size in contents.blobs:
            data = (archive / layout.blob_path(digest)).read_bytes()
            assert len(data) == size
            file.put(digest, data)

    with passed_bundle(target, contents, fill, directory=tmp_path, stopping=threading.Event()):
        assert os.fstat(taken[0]).st_blocks * 512 < 200_000  # the end, and pages that lie across two members
    assert target.data.getvalue() == packed(parts_of(contents, archive))
