"""Volumes are slices of the one tar, and read as one; whichever is missing, doubled, foreign or damaged is named."""

import errno
import io
import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from regwrap.bundle.as_list import read_listing
from regwrap.bundle.contents import BundleContents, blob_end
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
from regwrap.bundle.volume_places import beside, volumes_also_in
from regwrap.bundle.volume_stream import never, volume_stream
from regwrap.bundle.volume_target import VolumeTarget
from regwrap.bundle.volumes import found_volumes
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.commands.join import join_bundles
from regwrap.core.errors import BrokenBlobError, IntegrityError, RegwrapError, ToolError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import flip, make_image, make_layer, make_multi_image, make_storage, put, snapshot, storage_problems
from tests.bundles import contents_of, listed, older, packed, parts_of

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


def write(root: Path, output: Path, *names: str, size: int = SIZE, only: int = 0) -> None:
    selection = select_images(Storage(root), tuple(map(listed, names or IMAGES)))
    target = VolumeTarget(output=output, size=size, only=only)
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


def verified(bundle: Path) -> tuple[str, ...]:
    with volume_stream(bundle, never) as file:
        return verify_incoming(file, None, lambda _bytes: None, (), Arrival(bundle)).problems


# --- written


def test_what_stood_beside_an_earlier_bundle_of_the_name_goes(archive: Path, tmp_path: Path) -> None:
    """A report's facts of last month would be taken for those of this bundle."""
    stale = tmp_path / "r.json"
    stale.write_text("{}")
    write(archive, tmp_path / "r.tar")
    assert not stale.exists()
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


def test_they_are_the_bundle_cut_into_slices_with_a_checksum_each(bundle: Path, whole: bytes) -> None:
    parts = volumes_of(bundle)
    assert b"".join(part.read_bytes() for part in parts) == whole
    assert [part.stat().st_size for part in parts][:-1] == [SIZE] * (len(parts) - 1)
    assert all(part.stat().st_mode & 0o777 == 0o644 for part in parts)
    lines = bundle.with_name("v1.tar.sha256").read_text().splitlines()
    assert lines == [f"{sha256(part.read_bytes()).hexdigest()}  {part.name}" for part in parts]
    facts = json.loads(bundle.with_name("v1.tar.json").read_text())
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
    assert verify_bundle(tmp_path / "v.tar", None, lambda _bytes: None).problems == ()


def test_one_of_them_is_made_again_and_is_the_same(archive: Path, bundle: Path) -> None:
    parts = volumes_of(bundle)
    for number, part in enumerate(parts, start=1):
        before, others = part.read_bytes(), snapshot(bundle.parent)
        part.unlink()
        write(archive, bundle, only=number)
        assert part.read_bytes() == before
        assert snapshot(bundle.parent) == others


def test_one_that_would_be_another_is_refused(archive: Path, bundle: Path) -> None:
    before = snapshot(bundle.parent)
    with pytest.raises(IntegrityError, match="would be another one"):
        write(archive, bundle, "multi:1", only=1)
    with pytest.raises(UsageError, match="has 4 volumes"):
        write(archive, bundle, only=5)
    assert snapshot(bundle.parent) == before


def test_what_is_left_of_an_earlier_bundle_goes(archive: Path, bundle: Path) -> None:
    assert len(volumes_of(bundle)) == 4
    write(archive, bundle, "multi:1")
    assert len(volumes_of(bundle)) == 2
    assert verified(bundle) == ()
    write(archive, bundle)
    assert verified(bundle) == ()


def test_a_whole_bundle_of_that_name_is_not_hidden_behind(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "v.tar").write_bytes(b"old")
    with pytest.raises(UsageError, match="would be taken instead"):
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


class _Full:
    f_bavail, f_blocks, f_frsize, f_files, f_favail = 1, 100, 4096, 0, 0


# --- read


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


@pytest.mark.parametrize("says", ["more bytes than volumes have", "an index of 8 GiB", "one of less than nothing"])
def test_a_first_one_that_says_what_cannot_be_is_refused(bundle: Path, says: str) -> None:
    bundle.with_name("v1.tar.json").unlink()
    first = bundle.with_name("v1.tar.001")
    header, index = first.read_bytes()[:512], bytes.split(first.read_bytes()[512:], b"\0")[0]
    if says.startswith("more"):
        index = re.sub(rb'"size": 9\d{4}', b'"size": 4611686018427387904', index)
        length = f"{len(index):011o}"
    else:
        length = "77777777777" if "GiB" in says else "-0000000001"
    first.write_bytes(header[:124] + length.encode() + header[135:] + index)
    with pytest.raises(IntegrityError, match=r"v1\.tar\.001 (has only|is no first volume)"):
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
    second = tmp_path / "v.tar.002"
    for at in (0, second.stat().st_size - 1):
        data = bytearray(second.read_bytes())
        data[at] ^= 1
        second.write_bytes(data)
        volumes = found_volumes(tmp_path / "v.tar")
        assert volumes is not None
        assert volumes.problems() == (f"{second}: has other bytes than the bundle",)
        data[at] ^= 1
        second.write_bytes(data)


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
    ],
)
def test_a_page_beside_them_that_fits_nothing_is_refused(bundle: Path, change: object) -> None:
    assert callable(change)
    page = bundle.with_name("v1.tar.json")
    page.write_text(change(page.read_text()))
    with pytest.raises(IntegrityError, match="json"):
        verified(bundle)


def test_volumes_stand_for_their_images_wherever_a_list_does(bundle: Path) -> None:
    assert {f"{entry.dest}" for entry in read_listing(f"{bundle}", io.BytesIO()).entries} == set(IMAGES)
    (known,) = read_older([f"{bundle}"])
    assert known.blobs == inspect_contents(bundle).sizes
    assert known_checksum(bundle) == ""  # that of the first volume is not the bundle's


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
