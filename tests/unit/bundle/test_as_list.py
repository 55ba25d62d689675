"""Anything that says images is a list: a bundle and its bundle.json are what they hold, by digest."""

import io
import os
from pathlib import Path

import pytest

from regwrap.bundle.as_list import read_listing
from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.commands.gc import keep_of
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT
from regwrap.lists.imagelist import ImageEntry, parse_images
from tests.builders import make_image, make_multi_image, make_storage, put
from tests.bundles import Part, contents_of, listed, make_bundle, packed, parts_of

IMAGES = {"a/b:1": make_multi_image("multi"), "dotted.name/z:1": make_image("single")}


def entries_of(path: Path) -> tuple[ImageEntry, ...]:
    return read_listing(f"{path}", io.BytesIO()).entries


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "release", IMAGES)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    root = make_storage(tmp_path / "other", IMAGES)
    return put(tmp_path / "bundle.json", contents_of(root, *IMAGES).to_json())


@pytest.mark.slow
def test_a_bundle_and_its_index_are_their_images_by_digest(bundle: Path, index: Path) -> None:
    entries = entries_of(bundle)
    assert [(f"{e.dest}", e.source.digest, e.platforms, e.line) for e in entries] == [
        (name, image.top, (), 0) for name, image in sorted(IMAGES.items())
    ]
    assert all(entry.locked for entry in entries)
    assert entries_of(index) == entries


def test_each_line_is_the_line_of_a_list_that_says_the_same(bundle: Path) -> None:
    entries = entries_of(bundle)
    again = parse_images("\n".join(entry.text for entry in entries).encode(), "again.list").entries
    assert [(e.dest, e.source.digest, e.platforms) for e in again] == [
        (e.dest, e.source.digest, e.platforms) for e in entries
    ]


def test_a_bundle_holds_what_it_says_and_a_site_is_compared_with_it(bundle: Path, tmp_path: Path) -> None:
    entries = entries_of(bundle)
    assert verify_bundle(bundle, entries, SILENT).differences == ()
    site = make_storage(tmp_path / "site", {**IMAGES, "a/b:1": make_image("another")})
    differences = verify_storage(site, entries, SILENT).differences
    assert differences == (f"a/b:1: is {make_image('another').top}, the list says {IMAGES['a/b:1'].top}",)
    lines = verify_storage(make_storage(tmp_path / "none", {}), entries, SILENT).differences
    assert lines[0] == "a/b:1: is listed but missing here"


def test_platforms_that_a_bundle_leaves_out_are_not_asked_for(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    path = put(tmp_path / "r.tar", packed(parts_of(contents_of(root, listed("a/b:1", "linux/amd64")), root)))
    assert [tuple(map(str, entry.platforms)) for entry in entries_of(path)] == [("linux/amd64",)]
    assert verify_bundle(path, entries_of(path), SILENT).differences == ()


def test_gc_keeps_what_a_bundle_has_by_digest(bundle: Path) -> None:
    keep = keep_of(entries_of(bundle), last=None)
    assert keep.names == frozenset(IMAGES)
    assert keep.digests == {(name.rpartition(":")[0], image.top) for name, image in IMAGES.items()}


def test_a_cut_bundle_and_an_altered_index_are_damage(bundle: Path, index: Path) -> None:
    bundle.write_bytes(bundle.read_bytes()[:20_000])
    index.write_bytes(index.read_bytes().replace(b'"format": 1', b'"format": 1 '))
    with pytest.raises(IntegrityError, match=f"^{bundle}: "):
        entries_of(bundle)
    with pytest.raises(IntegrityError, match=f"^{index}: ") as raised:
        entries_of(index)
    assert "take bundle.json out of the bundle again" in raised.value.hint


def test_other_files_are_read_as_lists(tmp_path: Path) -> None:
    assert [f"{e.dest}" for e in entries_of(put(tmp_path / "images.list", b"app:v1\n"))] == ["app:v1"]
    assert [f"{e.dest}" for e in read_listing("-", io.BytesIO(b"app:v2\n")).entries] == ["app:v2"]
    with pytest.raises(UsageError, match="cannot read the list of images"):
        entries_of(tmp_path / "absent.list")
    for parts in ([], [Part("file", b"no bundle")]):
        with pytest.raises(UsageError, match=r"other\.tar"):
            entries_of(put(tmp_path / "other.tar", packed(parts)))


def test_a_list_that_comes_through_a_pipe_loses_nothing_by_being_looked_at() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"app:v1\n")
    os.close(writing)
    with os.fdopen(reading):
        assert [f"{e.dest}" for e in entries_of(Path(f"/proc/self/fd/{reading}"))] == ["app:v1"]


@pytest.mark.parametrize(("name", "why"), [("loop/list", "Too many levels of symbolic links"), ("a\0b", "null")])
def test_a_name_that_no_file_can_have_is_told_as_that_of_a_list(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match=f"cannot read the list of images .*{why}"):
        entries_of(tmp_path / name)
