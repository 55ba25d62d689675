"""index.json of an OCI layout: read strictly, changed whole."""

from pathlib import Path

import pytest

from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.model import OCI_MANIFEST, Digest, LayoutRef, ParseError
from regwrap.core.ocilayout import LayoutEntry
from tests.builders import flip, make_image


def make_layout(directory: Path, *names: str) -> Path:
    (directory / "blobs/sha256").mkdir(parents=True)
    (directory / ocilayout.MARK).write_bytes(ocilayout.MARK_BYTES)
    images = {name: make_image(name).raw for name in names}
    for raw in images.values():
        (directory / ocilayout.blob_path(Digest.of(raw))).write_bytes(raw)
    entries = tuple(
        LayoutEntry(name=name, media_type=OCI_MANIFEST, digest=Digest.of(raw), size=len(raw))
        for name, raw in images.items()
    )
    (directory / ocilayout.INDEX).write_bytes(ocilayout.index_bytes(entries))
    return directory


def nothing(_path: Path) -> None:
    pass


@pytest.mark.parametrize("text", ["oci:dir", "oci:/a/dir:v1", "oci:dir:team/app:v1"])
def test_a_layout_reference_is_what_it_was_read_from(text: str) -> None:
    assert str(LayoutRef.parse(text)) == text


@pytest.mark.parametrize("text", ["dir:v1", "oci:", "oci::v1", "oci:dir:", "oci:dir:a b", "oci:dir:-x"])
def test_what_is_no_layout_reference_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="expected oci:DIR"):
        LayoutRef.parse(text)


def test_publishing_adds_to_what_is_there(tmp_path: Path) -> None:
    there = make_layout(tmp_path / "there", "old")
    ocilayout.publish(make_layout(tmp_path / "built", "new"), there, nothing)
    assert [entry.name for entry in ocilayout.read_entries(there)] == ["old", "new"]
    for entry in ocilayout.read_entries(there):
        assert Digest.of(ocilayout.read_blob(there, entry.digest)) == entry.digest


def test_a_tag_that_another_took_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    there = make_layout(tmp_path / "there", "v1")
    built = make_layout(tmp_path / "built", "other")
    (built / ocilayout.INDEX).write_bytes((built / ocilayout.INDEX).read_bytes().replace(b'"other"', b'"v1"'))
    before = (there / ocilayout.INDEX).read_bytes()
    with pytest.raises(UsageError, match="another image v1 already"):
        ocilayout.publish(built, there, nothing)
    assert (there / ocilayout.INDEX).read_bytes() == before


def test_a_directory_with_other_things_is_no_place_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="neither empty nor an OCI layout"):
        ocilayout.is_published(tmp_path, "v1", None)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"manifests": [{}]}', b'{"manifests": 5}', b"\xff"])
def test_a_damaged_index_is_named(tmp_path: Path, text: bytes) -> None:
    layout = make_layout(tmp_path / "l", "v1")
    (layout / ocilayout.INDEX).write_bytes(text)
    with pytest.raises(IntegrityError, match=r"index\.json is damaged"):
        ocilayout.read_entries(layout)


def test_a_manifest_with_other_bytes_is_refused(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "l", "v1")
    entry = ocilayout.named_entry(layout, None)
    flip(layout / ocilayout.blob_path(entry.digest))
    with pytest.raises(IntegrityError, match="does not match"):
        ocilayout.read_blob(layout, entry.digest)


def test_one_of_several_images_has_to_be_chosen(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "l", "v1", "v2")
    with pytest.raises(UsageError, match="2 images, and none is chosen; it has v1, v2"):
        ocilayout.named_entry(layout, None)
