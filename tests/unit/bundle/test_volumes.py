"""Volumes are slices of the one tar, and read as one; whichever is missing, doubled, foreign or damaged is named."""

import errno
import io
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import IO

import pytest

from regwrap.bundle.as_list import read_listing
from regwrap.bundle.contents import BundleContents, blob_end, links_end
from regwrap.bundle.delta import read_older, since
from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.examine_incoming import Arrival, verify_incoming
from regwrap.bundle.inspection import inspect_bundle
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.opened import opened_image_set
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.select import select_images
from regwrap.bundle.stream import streamed_bundle
from regwrap.bundle.volume_places import beside, named_directories, volumes_also_in
from regwrap.bundle.volume_stream import never, volume_stream
from regwrap.bundle.volume_target import VolumeTarget
from regwrap.bundle.volumes import MAX_VOLUMES, found_volumes, opened_volumes
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.commands.join import join_bundles
from regwrap.core.errors import BrokenBlobError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
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
    replace_by_fifo,
    snapshot,
    storage_problems,
)
from tests.bundles import contents_of, listed, older, packed, parts_of
from tests.lost import lose

BASE = random.Random(5).randbytes(90_000)
IMAGES = {"app:1": make_image("app", layers=[BASE, make_layer("a")]), "multi:1": make_multi_image("multi")}
SIZE = 50_000
OPTIONS = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_storage(tmp_path_factory.mktemp("volumes") / "archive", IMAGES)


@pytest.fixture(scope="module")
def whole(archive: Path) -> bytes:
    return packed(parts_of(contents_of(archive, *IMAGES), archive))


def write(root: Path, output: Path, *names: str, size: int = SIZE, only: int = 0, summed: bool = True) -> None:
    selection = select_images(Storage(root), tuple(map(listed, names or IMAGES)))
    target = VolumeTarget(output=output, size=size, only=only, summed=summed)
    with streamed_bundle(selection, target, Silent(), hashed=True):
        pass


@pytest.fixture
def bundle(archive: Path, tmp_path: Path) -> Path:
    """The name of a bundle that is there in volumes."""
    (tmp_path / "media").mkdir()
    write(archive, tmp_path / "media/v1.tar")
    return tmp_path / "media/v1.tar"


def volumes_of(bundle: Path) -> list[Path]:
    return sorted(bundle.parent.glob(f"{bundle.name}.[0-9]*"))


def problems_of(bundle: Path) -> tuple[str, ...]:
    volumes = found_volumes(bundle)
    assert volumes is not None
    return volumes.problems()


def forget(bundle: Path, *suffixes: str) -> None:
    """What stands beside the volumes is lost."""
    for suffix in suffixes:
        bundle.with_name(f"{bundle.name}{suffix}").unlink()


def verified(bundle: Path) -> tuple[str, ...]:
    with volume_stream(bundle, never) as file:
        return verify_incoming(file, None, SILENT, (), Arrival(bundle)).problems


# --- written


@pytest.mark.slow
def test_what_stood_beside_an_earlier_bundle_of_the_name_goes(archive: Path, tmp_path: Path) -> None:
    """A report's facts of last month would be taken for those of this bundle, and recovery data would repair it."""
    stale = [put(tmp_path / name, b"{}") for name in ("r.json", "r.tar.par2", "r.tar.vol0+1.par2")]
    write(archive, tmp_path / "r.tar")
    assert [path for path in stale if path.exists()] == []
    assert (tmp_path / "r.tar.json").exists()


def test_each_is_on_the_disk_before_any_has_its_name(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A medium that is pulled out after `done` has what it is said to have."""
    synced, output = list[tuple[str, list[str]]](), tmp_path / "v1.tar"

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        synced.append((name, sorted(path.name for path in volumes_of(output))))

    monkeypatch.setattr(os, "fsync", fsync)
    write(archive, output)
    for part in volumes_of(output):
        (named,) = [there for name, there in synced if name.startswith(f"{part.name}.")]
        assert part.name not in named
    assert synced[-1][0] == tmp_path.name, "then the names"


def test_a_disk_that_loses_a_volume_is_an_error_and_nothing_has_its_name(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        write(archive, tmp_path / "v1.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_blob_that_the_disk_does_not_give_is_a_damaged_archive_which_can_be_repaired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_storage(tmp_path / "archive", IMAGES)
    lose(monkeypatch, path := Storage(root).blob_path(Digest.of(BASE)))
    with pytest.raises(BrokenBlobError, match="is damaged; no bundle was written") as raised:
        write(root, tmp_path / "v1.tar")
    assert raised.value.problems == (f"{path} cannot be read: Input/output error",)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_volume_that_its_medium_does_not_give_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = bundle.with_name("v1.tar.002")
    lose(monkeypatch, second)
    assert problems_of(bundle) == (f"{second}: cannot be read: Input/output error",)


def test_they_are_the_bundle_cut_into_slices_with_a_checksum_each(bundle: Path, whole: bytes) -> None:
    parts = volumes_of(bundle)
    assert b"".join(part.read_bytes() for part in parts) == whole
    assert [part.stat().st_size for part in parts][:-1] == [SIZE] * (len(parts) - 1)
    assert all(part.stat().st_mode & 0o777 == 0o644 for part in parts)
    lines = bundle.with_name("v1.tar.sha256").read_text().splitlines()
    assert lines == [f"{sha256(part.read_bytes()).hexdigest()}  {part.name}" for part in parts]
    page = bundle.with_name("v1.tar.json").read_text()
    assert page.startswith('{\n "bundle": "v1.tar",\n "bytes": '), "a line for each, to be read"
    facts = json.loads(page)
    assert (facts["bundle"], facts["bytes"], facts["name"]) == ("v1.tar", len(whole), "")
    assert facts["volumes"][1] == {
        "volume": "v1.tar.002", "offset": SIZE, "bytes": SIZE, "sha256": lines[1].split()[0],
    }  # fmt: skip
    assert len(list(bundle.parent.iterdir())) == len(parts) + 2


@pytest.mark.parametrize("size", [1000, 65_536, 131_072, 10**9])
@pytest.mark.exhaustive
def test_any_size_gives_the_same_whole(archive: Path, whole: bytes, tmp_path: Path, size: int) -> None:
    write(archive, tmp_path / "v.tar", size=size)
    assert b"".join(part.read_bytes() for part in volumes_of(tmp_path / "v.tar")) == whole
    assert verified(tmp_path / "v.tar") == ()
    assert verify_bundle(tmp_path / "v.tar", None, SILENT).problems == ()


@pytest.mark.slow
def test_one_of_them_is_made_again_and_is_the_same(archive: Path, bundle: Path) -> None:
    parts = volumes_of(bundle)
    for number, part in enumerate(parts, start=1):
        before, others = part.read_bytes(), snapshot(bundle.parent)
        part.unlink()
        write(archive, bundle, only=number)
        assert part.read_bytes() == before
        assert snapshot(bundle.parent) == others


@pytest.mark.parametrize("piece", [7000, SIZE, 70_000])
def test_one_is_made_again_in_whatever_pieces_the_bundle_comes(
    archive: Path, bundle: Path, whole: bytes, piece: int
) -> None:
    third = bundle.with_name("v1.tar.003")
    before = third.read_bytes()
    third.unlink()
    target = VolumeTarget(output=bundle, size=SIZE, only=3)
    with target.written(contents_of(archive, *IMAGES)) as sink:
        for start in range(0, len(whole), piece):
            sink.write(memoryview(whole)[start : start + piece])
    assert third.read_bytes() == before


def test_one_that_would_be_another_is_refused(archive: Path, bundle: Path) -> None:
    before = snapshot(bundle.parent)
    with pytest.raises(IntegrityError, match="would be another one"):
        write(archive, bundle, "multi:1", only=1)
    with pytest.raises(UsageError, match="has 4 volumes"):
        write(archive, bundle, only=5)
    assert snapshot(bundle.parent) == before


@pytest.mark.slow
def test_what_is_left_of_an_earlier_bundle_goes(archive: Path, bundle: Path) -> None:
    assert len(volumes_of(bundle)) == 4
    for summed in (True, False):
        write(archive, bundle, "multi:1", summed=summed)
        assert len(volumes_of(bundle)) == 2
        assert verified(bundle) == ()
        write(archive, bundle)
        assert verified(bundle) == ()
    write(archive, bundle, size=10**9)
    assert len(volumes_of(bundle)) == 1
    assert verified(bundle) == ()


def test_a_whole_bundle_of_that_name_is_not_hidden_behind(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "v.tar").write_bytes(b"old")
    with pytest.raises(UsageError, match="would be read instead"):
        write(archive, tmp_path / "v.tar")
    with pytest.raises(UsageError, match="more than 999 volumes"):
        write(archive, tmp_path / "w.tar", size=10)
    assert [path.name for path in tmp_path.iterdir()] == ["v.tar"]


def test_nothing_is_left_of_volumes_of_a_rotten_archive(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "rotten", IMAGES)
    flip(root / layout.blob_path(Digest.of(BASE)))
    (tmp_path / "out").mkdir()
    with pytest.raises(BrokenBlobError):
        write(root, tmp_path / "out/v.tar")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_written(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("os.statvfs", lambda _path: _Full())
    with pytest.raises(ToolError, match="not enough space"):
        write(archive, tmp_path / "out/v.tar")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_run_left_of_the_same_volumes_takes_no_room_from_them(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = os.statvfs, put(tmp_path / "out/v.tar.002.regwrap-00000000.part", b"half")
    monkeypatch.setattr("os.statvfs", lambda path: _Full() if left.exists() else real(path))
    write(archive, tmp_path / "out/v.tar")
    assert verified(tmp_path / "out/v.tar") == ()


class _Full:
    f_bavail, f_blocks, f_frsize, f_files, f_favail = 1, 100, 4096, 0, 0


def test_their_names_are_on_the_disk_also_where_no_sums_are_written(
    archive: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release sums its volumes while it verifies them; one that is made again has its sum already."""
    synced, output = list[tuple[str, int]](), tmp_path / "out/v1.tar"
    output.parent.mkdir()

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, len(volumes_of(output))))

    monkeypatch.setattr(os, "fsync", fsync)
    write(archive, output, summed=False)
    assert synced[-1] == ("out", 4)
    assert b"".join(path.read_bytes() for path in sorted(output.parent.iterdir())) == whole
    volumes_of(output)[1].unlink()
    write(archive, output, only=2)
    assert synced[-1] == ("out", 4)
    assert verified(output) == ()


def test_a_sum_is_that_of_the_bytes_that_were_written_however_long_it_takes(
    archive: Path, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who writes has one buffer, and fills it anew as soon as it is taken."""

    class Slow:
        def __init__(self) -> None:
            self.state = sha256()

        def update(self, data: memoryview) -> None:
            time.sleep(0.01)
            self.state.update(data)

        def hexdigest(self) -> str:
            return self.state.hexdigest()

    target, buffer = VolumeTarget(output=tmp_path / "v1.tar", size=len(whole) // 2), bytearray(len(whole) // 2)
    contents = contents_of(archive, *IMAGES)
    assert contents.id == Digest.of(contents.to_json())
    with monkeypatch.context() as patch, target.written(contents) as sink:
        patch.setattr("hashlib.sha256", Slow)
        for start in (0, len(buffer)):
            buffer[:] = whole[start : start + len(buffer)]
            sink.write(memoryview(buffer))
            buffer[:] = bytes(len(buffer))
    assert (tmp_path / "v1.tar.sha256").exists()
    assert problems_of(tmp_path / "v1.tar") == ()


def test_there_are_as_many_as_have_a_number_and_no_more(tmp_path: Path) -> None:
    target = VolumeTarget(output=tmp_path / "v.tar", size=10)
    assert target.volumes(10 * MAX_VOLUMES)[-1].name == "v.tar.999"
    with pytest.raises(UsageError, match="more than 999 volumes") as raised:
        target.volumes(10 * MAX_VOLUMES + 1)
    assert raised.value.hint == "11 bytes or more each"


def test_a_directory_that_is_not_there_is_not_made_for_volumes(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="usb is not a directory"):
        write(archive, tmp_path / "usb/v1.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [(), ("v1.tar.003",), ("v1.tar.003", "v1.tar.sha256")])
def test_one_is_made_again_where_few_of_the_others_lie(
    archive: Path, bundle: Path, tmp_path: Path, there: Sequence[str]
) -> None:
    """The vendor has the list and the lock, not the media."""
    (tmp_path / "again").mkdir()
    for name in there:
        shutil.copy(bundle.with_name(name), tmp_path / "again")
    write(archive, tmp_path / "again/v1.tar", only=1)
    assert (tmp_path / "again/v1.tar.001").read_bytes() == bundle.with_name("v1.tar.001").read_bytes()
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"v1.tar.001", *there}


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("beside_it", [(".json", ".sha256"), (".json",), (".sha256",), ()])
@pytest.mark.parametrize("damaged", [2, 3, 1])
def test_one_is_made_again_whatever_is_damaged_there(
    archive: Path, bundle: Path, damaged: int, beside_it: Sequence[str]
) -> None:
    """It is made again since it is damaged, or another one is too."""
    second = bundle.with_name("v1.tar.002")
    good = second.read_bytes()
    forget(bundle, *({".json", ".sha256"} - set(beside_it)))
    cut(bundle.with_name(f"v1.tar.00{damaged}"))
    write(archive, bundle, only=2)
    assert second.read_bytes() == good


@pytest.mark.parametrize("says", ["", "{", "{}", '{"volumes": [{"volume": "x.001"}]}'])
def test_a_damaged_page_about_them_says_nothing_and_the_sums_still_count(
    archive: Path, bundle: Path, says: str
) -> None:
    second = bundle.with_name("v1.tar.002")
    good = second.read_bytes()
    second.unlink()
    bundle.with_name("v1.tar.json").write_text(says)
    write(archive, bundle, only=2)
    assert second.read_bytes() == good
    with pytest.raises(IntegrityError, match="would be another one"):
        write(archive, bundle, "app:1", only=2)
    assert second.read_bytes() == good


def test_one_that_would_be_another_is_refused_also_where_none_lies_there(archive: Path, bundle: Path) -> None:
    forget(bundle, ".001", ".002", ".003", ".004")
    with pytest.raises(IntegrityError, match="would be another one"):
        write(archive, bundle, "multi:1", only=1)
    assert volumes_of(bundle) == []


def test_one_that_what_stands_beside_it_does_not_know_is_no_other_one(archive: Path, tmp_path: Path) -> None:
    write(archive, tmp_path / "v1.tar", size=150_000)
    write(archive, tmp_path / "v1.tar", only=4)
    assert (tmp_path / "v1.tar.004").exists()


# --- read


@pytest.mark.slow
def test_the_bundle_is_read_out_of_them_wherever_one_is_asked_for(bundle: Path, whole: bytes, tmp_path: Path) -> None:
    plain = tmp_path / "plain.tar"
    plain.write_bytes(whole)
    assert inspect_bundle(bundle).images == inspect_bundle(plain).images
    with opened_image_set(bundle, lock_timeout=0, listener=Silent()) as image_set:
        for digest in image_set.contents.sizes:  # some lie in two or three volumes
            taken = bytearray()
            assert image_set.copy(digest, taken.extend)
            assert Digest.of(bytes(taken)) == digest
        piece = image_set.blob("app", Digest.of(BASE))
        assert piece is not None
        with piece.file:
            assert piece.digest() == Digest.of(BASE)
    one = deploy_bundle(plain, tmp_path / "one", OPTIONS, Silent())
    assert deploy_bundle(bundle, tmp_path / "two", OPTIONS, Silent()) == one
    with volume_stream(bundle, never) as file:
        assert deploy_incoming(file, bundle, tmp_path / "three", OPTIONS, Silent()) == one
    assert storage_problems(tmp_path / "two") == storage_problems(tmp_path / "three") == set()


@pytest.mark.slow
def test_a_delta_in_volumes_is_joined_with_a_base_in_volumes(archive: Path, whole: bytes, tmp_path: Path) -> None:
    write(archive, tmp_path / "base.tar", "multi:1", size=3000)
    contents = since(contents_of(archive, *IMAGES), [older(contents_of(archive, "multi:1"))])
    data = packed(parts_of(contents, archive))
    for number, start in enumerate(range(0, len(data), 7000), start=1):
        (tmp_path / f"delta.tar.{number:03}").write_bytes(data[start : start + 7000])
    out = tmp_path / "joined.tar"
    join_bundles([tmp_path / "base.tar"], tmp_path / "delta.tar", out, lock_timeout=0, listener=Silent())
    assert out.read_bytes() == whole


def test_without_what_stands_beside_them_the_first_says_what_they_are(bundle: Path) -> None:
    bundle.with_name("v1.tar.json").unlink()
    assert verified(bundle) == ()
    bundle.with_name("v1.tar.sha256").unlink()
    assert verified(bundle) == ()
    bundle.with_name("v1.tar.003").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of its 4 volumes: v1\.tar\.003"):
        verified(bundle)
    bundle.with_name("v1.tar.001").unlink()
    with pytest.raises(UsageError, match=r"v1\.tar\.001 is missing"):
        inspect_bundle(bundle)


@pytest.mark.parametrize(
    "says", ["more bytes than volumes have", "an index of 8 GiB", "one of less than nothing", "one of words"]
)
def test_a_first_one_that_says_what_cannot_be_is_refused(bundle: Path, says: str) -> None:
    bundle.with_name("v1.tar.json").unlink()
    first = bundle.with_name("v1.tar.001")
    header, index = first.read_bytes()[:512], bytes.split(first.read_bytes()[512:], b"\0")[0]
    if says.startswith("more"):
        index = re.sub(rb'"size": 9\d{4}', b'"size": 4611686018427387904', index)
        length = f"{len(index):011o}"
    else:
        length = {"8": "77777777777", "l": "-0000000001", "w": "many bytes!"}[re.split("of ", says)[1][0]]
    first.write_bytes(header[:124] + length.encode() + header[135:] + index)
    with pytest.raises(IntegrityError, match=r"v1\.tar\.001 (has only|is no first volume)"):
        verified(bundle)


def test_a_first_one_that_was_cut_behind_its_header_is_refused(bundle: Path) -> None:
    forget(bundle, ".json", ".sha256", ".002", ".003", ".004")
    os.truncate(bundle.with_name("v1.tar.001"), 512)
    with pytest.raises(IntegrityError, match=r"v1\.tar\.001 is no first volume"):
        verified(bundle)


def test_where_there_is_none_the_bundle_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "v1.tar.json").write_text("{}")
    (tmp_path / "v1.tar.12").write_text("x")
    (tmp_path / "v1.tar.0001").write_text("x")
    assert found_volumes(tmp_path / "v1.tar") is None
    with pytest.raises(UsageError, match="No such file"):
        inspect_bundle(tmp_path / "v1.tar")


def test_what_is_missing_is_named(bundle: Path) -> None:
    for number in (2, 4):
        bundle.with_name(f"v1.tar.00{number}").unlink()
    for look in (verified, inspect_bundle):
        with pytest.raises(UsageError, match=r"lacks 2 of its 4 volumes: v1\.tar\.002, v1\.tar\.004") as told:
            look(bundle)
        assert "--volume N" in told.value.hint


def test_where_volumes_are_looked_for_and_none_is_the_directories_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    with (
        volumes_also_in([tmp_path / "usb"]),
        pytest.raises(UsageError, match=f"there is no volume of {tmp_path}/v1.tar") as raised,
    ):
        inspect_bundle(tmp_path / "v1.tar")
    assert "--volumes-from DIR" in raised.value.hint


def test_what_is_doubled_is_named(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    shutil.copy(bundle.with_name("v1.tar.002"), tmp_path / "usb")
    with volumes_also_in([tmp_path / "usb"]), pytest.raises(UsageError, match=r"v1\.tar\.002 is there twice"):
        inspect_bundle(bundle)


@pytest.mark.parametrize("facts", [True, False])
def test_what_is_damaged_foreign_or_another_ones_copy_is_named(bundle: Path, tmp_path: Path, *, facts: bool) -> None:
    if not facts:
        bundle.with_name("v1.tar.json").unlink()
    third, good = bundle.with_name("v1.tar.003"), bundle.with_name("v1.tar.003").read_bytes()
    write(make_storage(tmp_path / "other", {"x:1": make_image("x", layers=[BASE[:80_000]])}), tmp_path / "x.tar", "x:1")
    for wrong in (bundle.with_name("v1.tar.002").read_bytes(), (tmp_path / "x.tar.002").read_bytes()):
        third.write_bytes(wrong[: len(good)].ljust(len(good), b"\1"))
        with pytest.raises(IntegrityError, match="1 of its volumes") as told:
            verified(bundle)
        assert told.value.problems[0].startswith(f"{third}: ")
        assert "--volume N" in told.value.hint
    flip(third)
    volumes = found_volumes(bundle)
    assert volumes is not None
    assert [line.partition(": ")[0] for line in volumes.problems()] == [f"{third}"]
    third.write_bytes(good + b"x")
    with pytest.raises(IntegrityError, match="1 of its volumes") as told:
        verified(bundle)
    assert told.value.problems == (f"{third}: has {len(good) + 1:,} bytes instead of {len(good):,}",)
    third.write_bytes(good)
    shutil.copy(third, bundle.with_name("v1.tar.005"))
    with pytest.raises(IntegrityError) as told:
        inspect_bundle(bundle)
    assert told.value.problems == (f"{bundle.with_name('v1.tar.005')}: v1.tar has only 4 volumes",)


@pytest.mark.slow
def test_where_nobody_says_the_sums_the_volume_with_damage_is_found_by_the_bundle_itself(bundle: Path) -> None:
    """The files beside it are easily lost; then every byte is still known, by bundle.json or by its digest there."""
    for beside_it in ("v1.tar.json", "v1.tar.sha256"):
        bundle.with_name(beside_it).unlink()
    good = {path: path.read_bytes() for path in volumes_of(bundle)}
    told_of = set[str]()
    for path, data in list(good.items())[1:]:
        for at in (10, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            volumes = found_volumes(bundle)
            assert volumes is not None
            (line,) = volumes.problems()
            named = line.removesuffix(": has other bytes than the bundle").split(" or ")
            assert f"{path}" in named
            told_of.add(line)
        path.write_bytes(data)
    volumes = found_volumes(bundle)
    assert volumes is not None
    assert volumes.problems() == ()
    assert any(" or " not in line for line in told_of)
    assert any(" or " in line for line in told_of), "a blob that two share"
    last = [path for path, data in good.items() if b"_manifests/tags" in data][-1]
    last.write_bytes(good[last].replace(b"docker/registry", b"docker/rEgistry"))
    with pytest.raises(IntegrityError, match="1 of its volumes is damaged") as told:
        inspect_bundle(bundle)
    assert told.value.problems == (f"{last}: has other bytes than the bundle",)


def test_damage_at_the_edge_of_a_volume_is_that_volumes_alone(archive: Path, tmp_path: Path) -> None:
    """The second one begins with the first link."""
    contents = contents_of(archive, *IMAGES)
    write(archive, tmp_path / "v.tar", size=blob_end(contents))
    for beside_it in ("v.tar.json", "v.tar.sha256"):
        (tmp_path / beside_it).unlink()
    first, second = volumes_of(tmp_path / "v.tar")[:2]
    for path, at in ((first, first.stat().st_size - 1), (second, 0), (second, second.stat().st_size - 1)):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        assert problems_of(tmp_path / "v.tar") == (f"{path}: has other bytes than the bundle",)
        data[at] ^= 1
        path.write_bytes(data)


def test_a_reader_at_any_place_blames_the_volume(bundle: Path) -> None:
    last = [path for path in volumes_of(bundle) if b"_manifests/tags" in path.read_bytes()][-1]
    last.write_bytes(last.read_bytes().replace(b"docker/registry", b"docker/rEgistry"))
    with pytest.raises(IntegrityError, match="1 of its volumes is damaged") as told:
        inspect_bundle(bundle)
    assert told.value.problems == (f"{last}: has other bytes than v1.tar.sha256 says",)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"offset": 50000', '"offset": 50001'),
        lambda text: text.replace("v1.tar.002", "../tar.002"),
        lambda text: text.replace('"bytes": 50000', '"bytes": -1', 1),
        lambda text: text[:-20],
        lambda _text: "[]",
        lambda _text: "[" * 100_000,
    ],
)
def test_a_page_beside_them_that_fits_nothing_is_refused(bundle: Path, change: object) -> None:
    assert callable(change)
    page = bundle.with_name("v1.tar.json")
    page.write_text(change(page.read_text()))
    with pytest.raises(IntegrityError, match="json"):
        verified(bundle)


@pytest.mark.parametrize("short", ["the last one has a single byte", "all have"])
def test_a_volume_may_be_as_small_as_a_byte(archive: Path, whole: bytes, tmp_path: Path, short: str) -> None:
    """A rest of the bundle is as long as it is; what is no byte long is no volume."""
    if short == "all have":
        put(tmp_path / "v.tar.001", b"x")
        put(tmp_path / "v.tar.json", b'{"volumes": [{"volume": "v.tar.001", "offset": 0, "bytes": 0, "sha256": ""}]}')
        with pytest.raises(IntegrityError, match=r"expected a whole number from 1 to"):
            found_volumes(tmp_path / "v.tar")
        return
    write(archive, tmp_path / "v.tar", size=len(whole) - 1)
    assert [path.stat().st_size for path in volumes_of(tmp_path / "v.tar")] == [len(whole) - 1, 1]
    assert verified(tmp_path / "v.tar") == ()


def test_reading_volumes_leaves_nothing_open(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what two of them share and was copied together; a medium that is in use can't be taken out."""
    monkeypatch.setattr(tempfile, "tempdir", f"{tmp_path}")
    with opened_bundle(bundle) as opened:
        shared = opened.blobs[Digest.of(BASE)]
        with opened.file.opened(shared) as (descriptor, located):
            assert os.pread(descriptor, located.size, located.offset) == BASE
        with opened.file.opened(shared) as (again, _located):
            assert again == descriptor, "it is copied once"
        assert len(open_below(tmp_path)) == 5
        alone = next(located for located in opened.blobs.values() if len(opened.file.ranges(located)) == 1)
        with opened.file.opened(alone) as (descriptor, _located):
            assert Path(f"/proc/self/fd/{descriptor}").readlink() in volumes_of(bundle), "nothing is copied for it"
    assert open_below(tmp_path) == []
    with pytest.raises(LookupError), opened_bundle(bundle):
        raise LookupError
    assert open_below(tmp_path) == []


def test_a_blob_without_a_byte_is_read_out_of_volumes(tmp_path: Path) -> None:
    images = {"app:1": make_image("app", layers=[b""])}
    root = make_storage(tmp_path / "archive", images)
    write(root, tmp_path / "v.tar", "app:1", size=10**6)
    with opened_bundle(tmp_path / "v.tar") as opened:
        empty = Digest.of(b"")
        with opened.opened(empty) as (_descriptor, located):
            assert (located.offset, located.size) == (0, 0)
        assert (opened.read(empty), opened.copy(empty)) == (b"", True)


def test_where_there_is_no_volume_a_stream_asks_for_the_directories(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=f"there is no volume of {tmp_path}/v1.tar") as raised,
        volume_stream(tmp_path / "v1.tar", never),
    ):
        pass
    assert "--volumes-from DIR" in raised.value.hint


def test_what_lies_beside_the_volumes_counts_on_whatever_medium_it_is(bundle: Path, tmp_path: Path) -> None:
    """The first volume is on none of them, so nothing else says what they are."""
    usb = tmp_path / "usb"
    usb.mkdir()
    for suffix in (".json", ".sha256"):
        bundle.with_name(f"v1.tar{suffix}").rename(usb / f"v1.tar{suffix}")
    bundle.with_name("v1.tar.001").rename(tmp_path / "first")
    with volumes_also_in([usb]), pytest.raises(UsageError, match=r"lacks 1 of its 4 volumes: v1\.tar\.001"):
        inspect_bundle(bundle)
    (tmp_path / "first").rename(bundle.with_name("v1.tar.001"))
    (usb / "v1.tar.json").unlink()
    flip(bundle.with_name("v1.tar.002"))
    with volumes_also_in([usb]):
        (line,) = problems_of(bundle)
    assert line == f"{bundle.with_name('v1.tar.002')}: has other bytes than v1.tar.sha256 says"


def test_after_an_error_nothing_more_is_looked_for_in_the_directories_of_that_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError), volumes_also_in([tmp_path]):
        inspect_bundle(tmp_path / "v1.tar")
    assert named_directories() == ()


def test_one_directory_by_two_names_has_each_volume_once(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(bundle.parent)
    with volumes_also_in([tmp_path / "again"]):
        assert inspect_bundle(bundle).images


def test_volumes_of_another_bundle_beside_them_are_none_of_theirs(bundle: Path) -> None:
    for number in range(1, 6):
        bundle.with_name(f"v2.tar.00{number}").write_bytes(b"another")
    assert verified(bundle) == ()


def test_a_pipe_that_was_put_in_a_volume_s_place_is_not_waited_for(bundle: Path, whole: bytes) -> None:
    volumes = found_volumes(bundle)
    assert volumes is not None
    replace_by_fifo(bundle.with_name("v1.tar.002"))
    with opened_volumes(volumes) as file:
        assert file.size < len(whole)


def test_foreign_volumes_are_told_in_their_order(bundle: Path) -> None:
    for number in (9, 5, 8, 6, 7):
        bundle.with_name(f"v1.tar.00{number}").write_bytes(b"another")
    with pytest.raises(IntegrityError, match="5 of its volumes are") as told:
        found_volumes(bundle)
    assert [line.partition(":")[0][-3:] for line in told.value.problems] == ["005", "006", "007", "008", "009"]


# --- what is damaged is named


def test_a_medium_that_is_not_there_hides_no_damage_on_the_others(bundle: Path) -> None:
    bundle.with_name("v1.tar.002").unlink()
    flip(bundle.with_name("v1.tar.003"))
    assert problems_of(bundle) == (f"{bundle.with_name('v1.tar.003')}: has other bytes than v1.tar.sha256 says",)


def test_a_copy_of_another_volume_is_known_also_where_nobody_says_the_sums(bundle: Path) -> None:
    forget(bundle, ".json", ".sha256")
    shutil.copy(bundle.with_name("v1.tar.002"), bundle.with_name("v1.tar.003"))
    assert problems_of(bundle) == (f"{bundle.with_name('v1.tar.003')}: has the same bytes as v1.tar.002",)


def test_where_the_sums_of_some_are_said_only_others_are_looked_at_closely(bundle: Path) -> None:
    """A line that is none, and one that was lost."""
    forget(bundle, ".json")
    sums = bundle.with_name("v1.tar.sha256")
    lines = sums.read_text().splitlines()
    sums.write_text("\n".join(["# sha256 of each volume", *lines[:3]]))
    flip(bundle.with_name("v1.tar.004"))
    assert problems_of(bundle) == (f"{bundle.with_name('v1.tar.004')}: has other bytes than the bundle",)
    flip(bundle.with_name("v1.tar.002"))
    assert problems_of(bundle) == (f"{bundle.with_name('v1.tar.002')}: has other bytes than v1.tar.sha256 says",)


def test_where_every_sum_is_right_the_damage_is_told_as_it_is(bundle: Path) -> None:
    """The bundle was altered before it was summed: no volume is to blame."""
    last = [path for path in volumes_of(bundle) if b"_manifests/tags" in path.read_bytes()][-1]
    before = sha256(last.read_bytes()).hexdigest()
    last.write_bytes(last.read_bytes().replace(b"docker/registry", b"docker/rEgistry"))
    for suffix in (".json", ".sha256"):
        page = bundle.with_name(f"v1.tar{suffix}")
        page.write_text(page.read_text().replace(before, sha256(last.read_bytes()).hexdigest()))
    with pytest.raises(IntegrityError, match=f"{bundle}: ") as told:
        inspect_bundle(bundle)
    assert (told.value.problems, "of its volumes" in told.value.message) == ((), False)


@pytest.mark.parametrize(("at", "says"), [(124, b"x"), (600, b"?")])
def test_where_not_even_the_index_can_be_read_the_error_is_told_as_it_is(bundle: Path, at: int, says: bytes) -> None:
    forget(bundle, ".sha256")
    page, first = bundle.with_name("v1.tar.json"), bundle.with_name("v1.tar.001")
    page.write_text(re.sub(r'"sha256": "[0-9a-f]*"', '"sha256": ""', page.read_text()))
    data = first.read_bytes()
    first.write_bytes(data[:at] + says + data[at + 1 :])
    with pytest.raises(IntegrityError, match=f"^{bundle}: "):
        inspect_bundle(bundle)


def test_of_a_blob_that_volumes_share_the_one_is_named_that_is_damaged_elsewhere_too(
    archive: Path, tmp_path: Path
) -> None:
    """The large blob lies in the first two, and the links do not."""
    bundle, contents = tmp_path / "v.tar", contents_of(archive, *IMAGES)
    with opened_bundle(put(tmp_path / "whole.tar", packed(parts_of(contents, archive)))) as opened:
        large = opened.blobs[Digest.of(BASE)]
    size = large.end // 2 + 1000
    write(archive, bundle, size=size)
    forget(bundle, ".json", ".sha256")
    first, second, *_others = volumes_of(bundle)

    def damage(at: int) -> None:
        path = volumes_of(bundle)[at // size]
        data = bytearray(path.read_bytes())
        data[at % size] ^= 1
        path.write_bytes(data)

    damage(large.offset + 5)
    assert problems_of(bundle) == (f"{first} or {second}: has other bytes than the bundle",)
    damage(links_end(contents) - 1)
    last = volumes_of(bundle)[links_end(contents) // size]
    assert last not in {first, second}
    assert set(problems_of(bundle)) == {
        f"{first} or {second}: has other bytes than the bundle",
        f"{last}: has other bytes than the bundle",
    }
    damage(large.end)  # padding, or the next one's header
    assert set(problems_of(bundle)) == {f"{path}: has other bytes than the bundle" for path in (second, last)}


def test_volumes_stand_for_their_images_wherever_a_list_does(bundle: Path) -> None:
    assert {f"{entry.dest}" for entry in read_listing(f"{bundle}", io.BytesIO()).entries} == set(IMAGES)
    (known,) = read_older([f"{bundle}"])
    assert known.blobs == inspect_contents(bundle).sizes
    assert known_checksum(bundle) == ""  # that of the first volume is not the bundle's
    bundle.with_name("v1.tar.001").unlink()
    with pytest.raises(UsageError, match=r"lacks 1 of its 4 volumes: v1\.tar\.001"):
        read_listing(f"{bundle}", io.BytesIO())


def inspect_contents(bundle: Path) -> BundleContents:
    with opened_bundle(bundle) as opened:
        return opened.contents


def test_what_lies_beside_a_bundle_may_lie_on_any_of_its_media(tmp_path: Path) -> None:
    bundle = tmp_path / "v1.tar"
    usb = tmp_path / "usb"
    (usb / "v1.tar.sig").mkdir(parents=True)  # no file
    with volumes_also_in([usb]):
        assert beside(bundle, ".sig") == tmp_path / "v1.tar.sig"
        (usb / "v1.tar.sig").rmdir()
        (usb / "v1.tar.sig").write_bytes(b"signed")
        assert beside(bundle, ".sig") == usb / "v1.tar.sig"
        (tmp_path / "v1.tar.sig").write_bytes(b"signed")
        assert beside(bundle, ".sig") in {tmp_path / "v1.tar.sig", usb / "v1.tar.sig"}


# --- media one by one


class Drive:
    """One place, into which media are put when they are asked for."""

    def __init__(self, place: Path, media: Sequence[Path]) -> None:
        place.mkdir()
        self.place, self.media, self.asked = place, list(media), list[str]()

    def change(self, name: str, directories: Sequence[Path]) -> bool:
        assert list(directories) == [self.place]
        self.asked.append(name)
        for path in self.place.iterdir():
            path.unlink()
        if not self.media:
            return False
        shutil.copy(self.media.pop(0), self.place)
        return True


def test_media_are_asked_for_one_by_one(bundle: Path, tmp_path: Path) -> None:
    parts = volumes_of(bundle)
    drive = Drive(tmp_path / "usb", [parts[0], parts[2], *parts[1:]])  # one of them is the wrong one at first
    name = tmp_path / "nowhere/v1.tar"
    with volumes_also_in([drive.place]), volume_stream(name, drive.change) as file:
        report = deploy_incoming(file, name, tmp_path / "site", OPTIONS, Silent())
    assert report.images == len(IMAGES)
    assert storage_problems(tmp_path / "site") == set()
    assert drive.asked == [f"v1.tar.00{number}" for number in (1, 2, 2, 3, 4)]


def test_the_first_medium_is_asked_for_also_where_another_one_is_in_the_drive(
    bundle: Path, whole: bytes, tmp_path: Path
) -> None:
    """Nothing stands beside the volumes: the first one alone says what they are."""
    first, second, *others = volumes_of(bundle)
    drive = Drive(tmp_path / "usb", [others[0], first, second, *others])
    shutil.copy(second, drive.place)
    with volumes_also_in([drive.place]), volume_stream(tmp_path / "v1.tar", drive.change) as file:
        assert file.read() == whole
    assert drive.asked == [f"v1.tar.00{number}" for number in (1, 1, 2, 3, 4)]
    shutil.copy(second, drive.place)
    with (
        volumes_also_in([drive.place]),
        pytest.raises(UsageError, match=r"v1\.tar\.001 is missing: it says what v1\.tar is"),
        volume_stream(tmp_path / "v1.tar", lambda _name, _directories: False),
    ):
        pytest.fail("it is not there")


def test_media_that_do_not_come_are_listed_and_nothing_is_changed(bundle: Path, tmp_path: Path) -> None:
    parts = volumes_of(bundle)
    drive = Drive(tmp_path / "usb", parts[:2])
    name = tmp_path / "v1.tar"
    with (
        pytest.raises(UsageError, match=r"lacks 2 of its 4 volumes: v1\.tar\.003, v1\.tar\.004"),
        volumes_also_in([drive.place]),
        volume_stream(name, drive.change) as file,
    ):
        deploy_incoming(file, name, tmp_path / "site", OPTIONS, Silent())
    assert not (tmp_path / "site/docker").exists()
    assert not (tmp_path / "site/.regwrap/deploy").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_bit_that_was_turned_in_any_volume_is_found(bundle: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        part = chance.choice(volumes_of(bundle))
        good, turned = part.read_bytes(), bytearray(part.read_bytes())
        turned[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        part.write_bytes(turned)
        with pytest.raises(RegwrapError), volume_stream(bundle, never) as file:
            deploy_incoming(file, bundle, tmp_path / "site", OPTIONS, Silent())
        assert not (tmp_path / "site/docker").exists()
        part.write_bytes(good)


# --- as a stream


def test_a_stream_closes_each_volume_behind_its_last_byte(bundle: Path, whole: bytes, tmp_path: Path) -> None:
    """Its medium can be taken out; what is not read to its end is closed as well."""
    found, media = list[list[str]](), volumes_of(bundle)
    drive = Drive(tmp_path / "usb", media)

    def change(name: str, directories: Sequence[Path]) -> bool:
        found.append(open_below(tmp_path))
        return drive.change(name, directories)

    with volumes_also_in([drive.place]), volume_stream(tmp_path / "nowhere/v1.tar", change) as file:
        assert file.read() == whole
        assert file.read() == b""
    assert found == [[]] * len(media)
    with volume_stream(bundle, never) as file:
        file.read(10)
        assert len(open_below(tmp_path)) == 1
    assert open_below(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_a_volume_of_another_bundle_is_known_at_its_end_whoever_reads(bundle: Path) -> None:
    flip(bundle.with_name("v1.tar.002"))
    with pytest.raises(IntegrityError, match="1 of its volumes is") as told, volume_stream(bundle, never) as file:
        file.read()
    assert told.value.problems == (f"{bundle.with_name('v1.tar.002')}: has other bytes than v1.tar.sha256 says",)


def test_damage_is_told_also_where_the_media_are_gone(bundle: Path) -> None:
    def read(_file: IO[bytes]) -> None:
        shutil.rmtree(bundle.parent)
        raise IntegrityError("a blob is damaged")

    with pytest.raises(IntegrityError, match=r"^a blob is damaged$"), volume_stream(bundle, never) as file:
        read(file)


def test_damage_is_told_also_where_the_medium_that_says_what_they_are_was_taken_out(
    bundle: Path, tmp_path: Path
) -> None:
    """One drive, and volumes alone on the media: when the second is read the first is gone."""
    second = put(tmp_path / "cut/v1.tar.002", bundle.with_name("v1.tar.002").read_bytes()[:-1])
    drive = Drive(tmp_path / "usb", [bundle.with_name("v1.tar.001"), second])
    with (
        volumes_also_in([drive.place]),
        pytest.raises(IntegrityError, match=r"usb/v1\.tar\.002 is damaged, or a volume of another bundle") as told,
        volume_stream(tmp_path / "v1.tar", drive.change) as file,
    ):
        file.read()
    assert "--volume 2" in told.value.hint


def test_a_medium_that_fails_is_told_with_the_volume(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_descriptor: int, _buffers: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "readv", failing)
    with pytest.raises(OSError, match=r"Input/output error: '.*v1\.tar\.001'"), volume_stream(bundle, never) as file:
        file.read()
