"""A bundle's file that is filled in any order: the same bytes as any other, and what an earlier run left is used."""

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from regwrap.bundle.contents import BundleContents
from regwrap.bundle.in_place import BundleInPlace, filled_bundle
from regwrap.core.errors import IntegrityError, Interrupted, ToolError, UsageError
from regwrap.core.listener import SILENT
from regwrap.core.model import Digest
from regwrap.storage.store import Storage
from tests.builders import make_image, make_layer, make_storage, put
from tests.bundles import contents_of, make_bundle

IMAGES = {
    "app:1": make_image("app", layers=[make_layer("large", Random(1).randbytes(300_000))]),
    "app:2": make_image("two"),
    "team/tool:1": make_image("tool", layers=[make_layer("other", Random(2).randbytes(70_000))]),
}
Fill = Callable[[BundleInPlace], None]


class StoppedError(Exception):
    """The run ends here."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "root", IMAGES)


def filling(root: Path, wanted: Callable[[Digest], bool] = lambda _digest: True) -> Fill:
    """Brings blobs in no order of the file; those that are proved already are left."""

    def fill(file: BundleInPlace) -> None:
        for digest in sorted(file.places, key=lambda digest: digest.hex[::-1]):
            if wanted(digest) and digest not in file.proved:
                file.put(digest, Storage(root).blob_path(digest).read_bytes())

    return fill


def write(output: Path, contents: BundleContents, fill: Fill) -> None:
    with filled_bundle(output, contents, fill, SILENT):
        assert not output.exists()


def parts(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f"{output.name}.regwrap-*.part"))


def stop_behind(fill: Fill) -> Fill:
    def stopped(file: BundleInPlace) -> None:
        fill(file)
        raise StoppedError

    return stopped


@pytest.mark.slow
def test_in_whatever_order_blobs_come_the_bytes_are_those_of_tar(tmp_path: Path, root: Path) -> None:
    write(tmp_path / "out.tar", contents_of(root, *IMAGES), filling(root))
    assert (tmp_path / "out.tar").read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()
    assert parts(tmp_path / "out.tar") == []


def test_what_stands_beside_an_earlier_bundle_goes(tmp_path: Path, root: Path) -> None:
    beside = [put(tmp_path / name, b"earlier") for name in ("out.tar.sha256", "out.json", "out.tar.par2")]
    write(tmp_path / "out.tar", contents_of(root, "app:2"), filling(root))
    assert [path for path in beside if path.exists()] == []


@pytest.mark.slow
def test_the_next_run_believes_what_is_there_by_its_hash_only(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    lacking = Digest.of(IMAGES["app:1"].blobs[1])
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root, lambda digest: digest != lacking)))
    (left,) = parts(output)
    rotten = Digest.of(IMAGES["team/tool:1"].blobs[1])
    found: dict[str, bool] = {}

    def fill(file: BundleInPlace) -> None:
        with left.open("r+b") as raw:
            raw.seek(file.places[rotten].offset)
            raw.write(b"?")
        assert file.part.path == left
        for digest, place in file.places.items():
            found[f"{digest}"] = file.arrived[digest] == place.size and file.is_valid(digest)
        filling(root)(file)

    write(output, contents, fill)
    assert [digest for digest, is_there in found.items() if not is_there] == sorted([f"{lacking}", f"{rotten}"])
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()
    assert parts(output) == []


def test_of_a_blob_that_came_in_part_no_more_counts_than_came(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    large = Digest.of(IMAGES["app:1"].blobs[1])
    data = Storage(root).blob_path(large).read_bytes()
    came = len(data) // 2

    def half(file: BundleInPlace) -> None:
        os.pwrite(file.part.descriptor, data[:came], file.places[large].offset)
        file.arrived[large] = came
        raise StoppedError

    with pytest.raises(StoppedError):
        write(output, contents, half)
    seen: list[int] = []

    def rest(file: BundleInPlace) -> None:
        seen.append(file.arrived[large])
        os.pwrite(file.part.descriptor, data[seen[0] :], file.places[large].offset + seen[0])
        assert file.is_valid(large)
        filling(root)(file)

    write(output, contents, rest)
    assert 0 < seen[0] <= came
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()


def test_where_nothing_has_come_nothing_is_left(tmp_path: Path, root: Path) -> None:
    with pytest.raises(StoppedError):
        write(tmp_path / "out.tar", contents_of(root, *IMAGES), stop_behind(lambda _file: None))
    assert parts(tmp_path / "out.tar") == []


@pytest.mark.parametrize("open_to", ["others", "a second name"])
def test_what_another_user_may_have_put_there_is_not_gone_on_with(tmp_path: Path, root: Path, open_to: str) -> None:
    place = tmp_path / "place"
    place.mkdir()
    planted = put(place / "out.tar.regwrap-00000000.part", b"precious" * 1000)
    if open_to == "others":
        place.chmod(0o777)
        victim = planted
    else:
        victim = tmp_path / "victim"
        os.link(planted, victim)
    write(place / "out.tar", contents_of(root, *IMAGES), filling(root))
    assert (place / "out.tar").read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()
    assert not victim.exists() or victim.read_bytes() == b"precious" * 1000


def test_two_runs_of_one_output_do_not_write_into_one_file(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"

    def meanwhile(file: BundleInPlace) -> None:
        with pytest.raises(UsageError, match=r"another regwrap is writing"):
            write(output, contents, filling(root))
        filling(root)(file)

    write(output, contents, meanwhile)
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()


def test_a_blob_that_does_not_come_leaves_no_bundle(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    gone = Digest.of(IMAGES["app:2"].raw)
    with pytest.raises(IntegrityError, match="1 blob was not received"):
        write(output, contents, filling(root, lambda digest: digest != gone))
    assert not output.exists()


def test_what_a_run_left_that_died_at_once_gets_the_mode_of_a_bundle(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "r.tar"
    left = put(tmp_path / "r.tar.regwrap-00000000.part", b"")
    left.chmod(0o600)
    write(output, contents, filling(root))
    assert not left.exists()
    assert output.stat().st_mode & 0o777 == 0o644


def test_what_an_earlier_run_left_of_a_longer_bundle_is_cut_off(tmp_path: Path, root: Path) -> None:
    output = tmp_path / "out.tar"
    with pytest.raises(StoppedError):
        write(output, contents_of(root, *IMAGES), stop_behind(filling(root)))
    assert len(parts(output)) == 1
    write(output, contents_of(root, "app:2"), filling(root))
    assert output.read_bytes() == make_bundle(tmp_path / "other", {"app:2": IMAGES["app:2"]}).read_bytes()


def test_nothing_of_what_an_earlier_run_left_stays_between_the_blobs(tmp_path: Path) -> None:
    """The last blob is larger than all links: nothing is written behind the end either."""
    images = {"app:1": make_image("last", layers=[Random(280).randbytes(90_000)])}
    root, output = make_storage(tmp_path / "archive", images), tmp_path / "out.tar"
    contents = contents_of(root, *images)
    assert contents.blobs[-1][1] == 90_000
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root)))
    (left,) = parts(output)
    left.write_bytes(b"?" * left.stat().st_size)
    write(output, contents, filling(root))
    assert output.read_bytes() == make_bundle(tmp_path / "other", images).read_bytes()


def test_of_a_blob_that_has_not_come_nothing_counts(tmp_path: Path, root: Path) -> None:
    """Though the header before it lies in the same block of the disk."""
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root, lambda digest: digest == IMAGES["app:2"].top)))
    seen = list[int]()

    def fill(file: BundleInPlace) -> None:
        seen.append(file.arrived[Digest.of(IMAGES["app:1"].blobs[1])])
        filling(root)(file)

    write(output, contents, fill)
    assert seen == [0]


def test_what_has_come_outlives_a_run_that_brings_nothing_and_not_a_wrong_hash(tmp_path: Path, root: Path) -> None:
    contents, output, came = contents_of(root, *IMAGES), tmp_path / "out.tar", 200_000
    large = Digest.of(IMAGES["app:1"].blobs[1])

    def some(file: BundleInPlace) -> None:
        os.pwrite(file.part.descriptor, bytes(came), file.places[large].offset)
        file.arrived[large] = came
        raise StoppedError

    def nothing(file: BundleInPlace) -> None:
        assert 0 < file.arrived[large] <= came
        raise StoppedError

    def wrong(file: BundleInPlace) -> None:
        file.arrived = {large: file.arrived[large]}
        assert not file.is_valid(large)
        raise StoppedError

    for fill, left in ((some, 1), (nothing, 1), (wrong, 0)):
        with pytest.raises(StoppedError):
            write(output, contents, fill)
        assert len(parts(output)) == left


def test_where_holes_can_not_be_found_nothing_has_come(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root)))
    seek = os.lseek

    def failing(descriptor: int, offset: int, whence: int) -> int:
        if whence == os.SEEK_HOLE:
            raise OSError(errno.EINVAL, "Invalid argument")
        return seek(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", failing)
    seen = list[int]()

    def fill(file: BundleInPlace) -> None:
        seen.extend(file.arrived.values())
        filling(root)(file)

    write(output, contents, fill)
    assert set(seen) == {0}
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()


def disk_with(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """The kernel's answer for a disk that has just so much."""
    status = SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=10**9, f_files=0, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _path: status)


def test_a_bundle_begins_only_where_all_of_it_has_room(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come already takes no more: a run goes on where the disk is nearly full."""
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    disk_with(monkeypatch, contents.tar_bytes - 1)
    with pytest.raises(ToolError, match="not enough space") as raised:
        write(output, contents, filling(root))
    assert "another disk with -o" in raised.value.hint
    assert list(tmp_path.glob("out*")) == []
    disk_with(monkeypatch, contents.tar_bytes)
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root)))
    disk_with(monkeypatch, contents.tar_bytes // 2)
    write(output, contents, filling(root))
    assert output.exists()


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    disk_with(monkeypatch, 0)


def refused(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def failing(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, failing)


@pytest.mark.parametrize(
    "trouble",
    [
        full_disk,
        partial(refused, call="ftruncate"),
        partial(refused, call="pwrite"),
        partial(refused, call="fsync"),
        partial(refused, call="rename"),
    ],
    ids=["full", "ftruncate", "pwrite", "fsync", "rename"],
)
def test_what_an_earlier_run_has_left_outlives_a_run_that_fails_anywhere(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch], None]
) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"
    lacking = Digest.of(IMAGES["app:1"].blobs[1])
    with pytest.raises(StoppedError):
        write(output, contents, stop_behind(filling(root, lambda digest: digest != lacking)))
    left = parts(output)
    with monkeypatch.context() as during:
        trouble(during)
        with pytest.raises((ToolError, OSError)):
            write(output, contents, filling(root))
    assert parts(output) == left
    seen = dict[Digest, int]()

    def fill(file: BundleInPlace) -> None:
        seen.update(file.arrived)
        filling(root)(file)

    write(output, contents, fill)
    came = Digest.of(IMAGES["team/tool:1"].blobs[1])
    assert seen[came] == contents.sizes[came]
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()


def test_a_whole_bundle_is_kept_where_the_run_ends_before_it_has_its_name(tmp_path: Path, root: Path) -> None:
    contents, output = contents_of(root, *IMAGES), tmp_path / "out.tar"

    def interrupted() -> None:
        with filled_bundle(output, contents, filling(root), SILENT):
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        interrupted()
    assert len(parts(output)) == 1

    def nothing_to_bring(file: BundleInPlace) -> None:
        assert all(map(file.is_valid, file.places))

    write(output, contents, nothing_to_bring)
    assert output.read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()


def test_where_another_user_may_write_nothing_is_kept_and_nobody_is_told_so(tmp_path: Path, root: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    seen = list[bool]()

    def fill(file: BundleInPlace) -> None:
        filling(root)(file)
        seen.append(file.is_wanted)
        raise StoppedError

    for output, left in ((place / "out.tar", 0), (tmp_path / "out.tar", 1)):
        with pytest.raises(StoppedError):
            write(output, contents_of(root, *IMAGES), fill)
        assert len(parts(output)) == left
    assert seen == [False, True]


def test_a_bundle_is_on_the_disk_before_it_has_its_name_and_then_its_name_is(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, synced = tmp_path / "out/out.tar", list[tuple[str, bool]]()
    output.parent.mkdir()

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, output.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write(output, contents_of(root, *IMAGES), filling(root))
    (part, *_), (directory, *_) = synced
    assert (part.startswith("out.tar.regwrap-"), directory) == (True, "out")
    assert [named for _name, named in synced] == [False, True]


def test_what_fails_is_told_with_its_own_file(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_file: BundleInPlace) -> None:
        raise OSError(errno.EIO, "Input/output error", "/archive/blob")

    def failing(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EFBIG, "File too large")

    contents = contents_of(root, *IMAGES)
    with pytest.raises(OSError, match="'/archive/blob'"):
        write(tmp_path / "out.tar", contents, fill)
    monkeypatch.setattr(os, "ftruncate", failing)
    with pytest.raises(OSError, match=r"File too large: '.*/out\.tar\.regwrap-"):
        write(tmp_path / "out.tar", contents, filling(root))


def test_what_can_not_be_a_bundle_s_file_is_refused_before_a_byte_is_fetched(tmp_path: Path, root: Path) -> None:
    def fill(_file: BundleInPlace) -> None:
        pytest.fail("it was begun")

    with pytest.raises(UsageError, match="is a directory"):
        write(root, contents_of(root, *IMAGES), fill)
    with pytest.raises(UsageError, match="none is not a directory"):
        write(tmp_path / "none/out.tar", contents_of(root, *IMAGES), fill)


def test_a_blob_that_the_bundle_does_not_have_is_passed_over(tmp_path: Path, root: Path) -> None:
    """An index brings manifests of platforms that nobody asked for."""

    def fill(file: BundleInPlace) -> None:
        file.put(Digest.of(b"other"), b"other")
        filling(root)(file)

    write(tmp_path / "out.tar", contents_of(root, *IMAGES), fill)
    assert (tmp_path / "out.tar").read_bytes() == make_bundle(tmp_path, IMAGES).read_bytes()
