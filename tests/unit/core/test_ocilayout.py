"""index.json of an OCI layout: read strictly, changed whole."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

import pytest

from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.manifest import MAX_MANIFEST_BYTES, OCI_MANIFEST
from regwrap.core.model import Digest, LayoutRef, ParseError
from regwrap.core.ocilayout import LayoutEntry
from tests.builders import flip, make_image, open_below


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


def test_an_index_is_written_as_other_programs_read_it_and_the_same_images_give_the_same_bytes() -> None:
    digest = Digest.of(b"x")
    named = LayoutEntry(name="v1", containerd="r.io/a:v1", media_type=OCI_MANIFEST, digest=digest, size=7)
    nameless = LayoutEntry(name=None, media_type=OCI_MANIFEST, digest=digest, size=7)
    own = f'"digest": "{digest}", "mediaType": "{OCI_MANIFEST}", "size": 7}}'
    names = '"io.containerd.image.name": "r.io/a:v1", "org.opencontainers.image.ref.name": "v1"'
    assert ocilayout.index_bytes((named, nameless)).decode() == (
        f'{{"manifests": [{{"annotations": {{{names}}}, {own}, {{{own}], "schemaVersion": 2}}\n'
    )


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


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"manifests": [{}]}', b'{"manifests": 5}', b"\xff", b"[" * 100_000]
)
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


def test_a_new_layout_is_on_the_disk_before_it_has_its_name_and_the_name_after_it(tmp_path: Path) -> None:
    seen: list[tuple[str, bool]] = []
    built = make_layout(tmp_path / "built", "new")
    ocilayout.publish(built, tmp_path / "there", lambda path: seen.append((path.name, (tmp_path / "there").exists())))
    assert seen == [("built", False), (tmp_path.name, True)]
    assert [entry.name for entry in ocilayout.read_entries(tmp_path / "there")] == ["new"]


def test_images_are_on_the_disk_before_the_index_names_them(tmp_path: Path) -> None:
    """A power cut leaves the old index or the new one, and never one of blobs that have no bytes."""
    there = make_layout(tmp_path / "there", "old")
    seen: list[tuple[str, list[str | None], bool, bool]] = []

    def sync(path: Path) -> None:
        names = [entry.name for entry in ocilayout.read_entries(there)]
        blobs = len(list((there / "blobs/sha256").iterdir()))
        seen.append((path.name, names, blobs == 2, is_locked(there)))

    ocilayout.publish(make_layout(tmp_path / "built", "new"), there, sync)
    assert seen == [
        ("built", ["old"], False, False),
        ("there", ["old"], True, True),
        ("built", ["old"], True, True),
        ("there", ["old", "new"], True, True),
    ]
    assert not is_locked(there)


def is_locked(layout: Path) -> bool:
    """Whether another regwrap would have to wait for it."""
    descriptor = os.open(layout, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        return True
    finally:
        os.close(descriptor)


def test_a_layout_that_cannot_be_locked_is_named_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make_layout(tmp_path / "there", "old")
    built = make_layout(tmp_path / "built", "new")

    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=f"No locks available: '{there}'"):
        ocilayout.publish(built, there, nothing)
    assert [entry.name for entry in ocilayout.read_entries(there)] == ["old"]
    assert open_below(tmp_path) == []


def test_the_same_image_again_is_no_second_entry(tmp_path: Path) -> None:
    there = make_layout(tmp_path / "there", "v1", "v2")
    assert ocilayout.is_published(there, "v1", Digest.of(make_image("v1").raw))
    assert ocilayout.is_published(there, "v1", None)
    assert not ocilayout.is_published(there, "v3", None)
    assert not ocilayout.is_published(tmp_path / "absent", "v1", None)
    (tmp_path / "empty").mkdir()
    assert not ocilayout.is_published(tmp_path / "empty", "v1", None)
    ocilayout.publish(make_layout(tmp_path / "built", "v2"), there, nothing)
    assert [entry.name for entry in ocilayout.read_entries(there)] == ["v1", "v2"]


def test_what_is_there_is_named_in_order_where_the_wanted_is_not(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "l", "v2", "v1")
    with pytest.raises(UsageError, match="has no image v3; it has v1, v2"):
        ocilayout.named_entry(layout, "v3")
    with pytest.raises(UsageError, match="has 0 images, and none is chosen; it has nothing"):
        ocilayout.named_entry(make_layout(tmp_path / "empty"), None)


@pytest.mark.slow
def test_an_index_without_a_list_or_larger_than_any_is_told_apart(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "l")
    (layout / ocilayout.INDEX).write_bytes(b'{"manifests": null}')
    assert ocilayout.read_entries(layout) == ()
    (layout / ocilayout.INDEX).write_bytes(b'{"manifests": []}'.ljust(5 * 1024 * 1024))
    assert ocilayout.read_entries(layout) == ()
    (layout / ocilayout.INDEX).write_bytes(b'{"manifests": []'.ljust(MAX_MANIFEST_BYTES - 1) + b"}")
    assert ocilayout.read_entries(layout) == ()
    (layout / ocilayout.INDEX).unlink()
    with pytest.raises(UsageError, match=r"is not an OCI layout: index\.json: No such file"):
        ocilayout.read_entries(layout)


def test_a_blob_that_is_absent_or_larger_than_asked_for_is_damage(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "l", "v1")
    digest = ocilayout.named_entry(layout, "v1").digest
    size = (layout / ocilayout.blob_path(digest)).stat().st_size
    assert len(ocilayout.read_blob(layout, digest, size)) == size
    with pytest.raises(IntegrityError, match="does not match"):
        ocilayout.read_blob(layout, digest, size - 2)
    with pytest.raises(IntegrityError, match="No such file"):
        ocilayout.read_blob(layout, Digest.of(b"absent"))
