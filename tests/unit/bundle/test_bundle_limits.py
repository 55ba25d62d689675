"""Bundles at the limits: many links, empty blobs, a bundle.json that is too large, one that does not fit together."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.contents import MAX_BUNDLE_JSON_BYTES, BundleContents, blob_end, links_end, parse_contents
from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.examine_incoming import verify_incoming
from regwrap.bundle.merge import ImportOptions, import_image_set, target_storage
from regwrap.bundle.opened import opened_contents
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.structure import structure_problems
from regwrap.bundle.write import header_of
from regwrap.commands.deploy import deploy_incoming
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.storage.commit import RealFiles
from tests.builders import make_image, make_storage
from tests.bundles import RECORD, bundle_image_set, contents_of, make_bundle, packed, parts_of, wrong_blobs

ONE = make_image("one")


def lacking_a_layer(place: Path) -> Path:
    """Read by itself each member is as it should be; the manifest names a layer that nothing else speaks of."""
    archive = make_storage(place / "archive", {"a:1": ONE})
    contents, gone = contents_of(archive, "a:1"), Digest.of(ONE.blobs[-1])
    lacking = replace(
        contents,
        blobs=tuple(pair for pair in contents.blobs if pair[0] != gone),
        repositories=tuple(replace(r, layers=tuple(d for d in r.layers if d != gone)) for r in contents.repositories),
    )
    path = place / "bundle.tar"
    path.write_bytes(packed(parts_of(lacking, archive)))
    return path


def test_a_bundle_that_does_not_fit_together_is_not_deployed(tmp_path: Path) -> None:
    """Else its tag would be listed, and a pull of it fail for want of a layer."""
    bundle, root = lacking_a_layer(tmp_path), tmp_path / "root"
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
    with (
        pytest.raises(IntegrityError, match="is inconsistent") as raised,
        bundle_image_set(bundle) as image_set,
    ):
        import_image_set(image_set, target_storage(root, options), "deploy", options, Silent(), RealFiles)
    assert raised.value.problems == (f"a:1: blob {Digest.of(ONE.blobs[-1])} is not in the bundle",)
    assert not root.exists()


def test_nor_is_one_that_comes_through_a_pipe(tmp_path: Path) -> None:
    bundle, root = lacking_a_layer(tmp_path), tmp_path / "root"
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
    with pytest.raises(IntegrityError, match="standard input is inconsistent") as raised, bundle.open("rb") as pipe:
        deploy_incoming(pipe, Path("-"), root, options, Silent())
    assert raised.value.problems == (f"a:1: blob {Digest.of(ONE.blobs[-1])} is not in the bundle",)
    assert not (root / "docker").exists()


def test_nor_is_it_served_or_pushed(tmp_path: Path) -> None:
    with (
        pytest.raises(IntegrityError, match="is inconsistent"),
        opened_contents(lacking_a_layer(tmp_path), hashed=False, listener=Silent()),
    ):
        pytest.fail("it was opened")


def test_what_a_bundle_lacks_is_a_line_of_its_check(tmp_path: Path) -> None:
    report = verify_bundle(lacking_a_layer(tmp_path), None, SILENT)
    assert report.problems == (f"a:1: blob {Digest.of(ONE.blobs[-1])} is not in the bundle",)
    (image,) = report.inventory.images
    assert image.blobs == {ONE.top, Digest.of(ONE.blobs[0])}


@pytest.mark.exhaustive
def test_more_links_than_are_compared_at_once_are_read_and_each_is_looked_at(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, {f"a:{number}": ONE for number in range(260)})
    with opened_bundle(bundle) as opened:
        assert len(opened.contents.members) - len(opened.contents.blobs) > 512
        assert structure_problems(opened) == wrong_blobs(opened) == []
        links = blob_end(opened.contents)
    whole = bundle.read_bytes()
    for place, name in (
        (whole.index(b"sha256:", links), "a/_layers/"),
        (whole.rindex(b"sha256:"), "/_manifests/tags/"),
    ):
        data = bytearray(whole)
        data[place + 10] ^= 1
        bundle.write_bytes(data)
        with opened_bundle(bundle) as opened:
            assert [name in problem for problem in structure_problems(opened)] == [True]
        with pytest.raises(IntegrityError, match="or a link behind it is not as regwrap writes it"):
            verify_incoming(io.BytesIO(data), None, SILENT)
    assert verify_incoming(io.BytesIO(whole), None, SILENT).problems == ()


def test_an_empty_blob_has_its_place(tmp_path: Path) -> None:
    with opened_bundle(make_bundle(tmp_path, {"a:1": ONE})) as opened:
        contents: BundleContents = opened.contents
    empty = replace(contents, blobs=tuple((digest, 0) for digest, _size in contents.blobs))
    assert parse_contents(empty.to_json()) == empty


@pytest.mark.exhaustive
def test_a_bundle_json_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar"
    for size, text in (
        (MAX_BUNDLE_JSON_BYTES + 1, "more than 134217728"),
        (MAX_BUNDLE_JSON_BYTES, "bundle.json is invalid"),
    ):
        with path.open("wb") as file:
            file.write(header_of("bundle.json", size))
            file.truncate(size + 64 * 1024)
        with pytest.raises(IntegrityError, match=text), opened_bundle(path):
            pytest.fail("it was read")


@pytest.mark.exhaustive
def test_a_bundle_that_nobody_could_read_is_not_made(tmp_path: Path) -> None:
    with opened_bundle(make_bundle(tmp_path, {"a:1": ONE})) as opened:
        contents = opened.contents
    (image,) = contents.images
    large = replace(contents, images=(replace(image, media_type="x" * MAX_BUNDLE_JSON_BYTES),))
    with pytest.raises(UsageError, match=r"of 1 image has 134\d{6} bytes, and one of more than 134217728 is not read"):
        large.to_json()


def nearly_full(place: Path, room: int) -> Path:
    """A bundle whose last record has `room` bytes left behind the last link."""
    size = RECORD
    for number in range(9):
        bundle = make_bundle(place / f"{number}", {"a:1": make_image("a", layers=[bytes(size)])})
        with opened_bundle(bundle) as opened:
            over = (-links_end(opened.contents) - room) % RECORD
        if not over:
            return bundle
        size += over
    raise AssertionError("a size that fits is found at once but for its digits")


@pytest.mark.parametrize("room", [0, 512, 1024])
def test_the_end_of_a_bundle_is_zeros_to_its_last_byte(tmp_path: Path, room: int) -> None:
    """Two zero blocks end a tar, and may need a record of their own."""
    bundle = nearly_full(tmp_path, room)
    whole = bundle.read_bytes()
    with opened_bundle(bundle) as opened:
        end = links_end(opened.contents)
    assert len(whole) == end + room + (RECORD if room < 1024 else 0)
    for place in (end, end + 1023, len(whole) - 1):
        bundle.write_bytes(whole[:place] + b"x" + whole[place + 1 :])
        with pytest.raises(IntegrityError, match=f"there is data after the last member, at byte {end}"):
            opened_bundle(bundle).__enter__()
    for wrong in (whole + bytes(RECORD), whole[:-512]):
        bundle.write_bytes(wrong)
        with pytest.raises(IntegrityError, match=f"{len(wrong)} bytes instead of {len(whole)}"):
            opened_bundle(bundle).__enter__()
