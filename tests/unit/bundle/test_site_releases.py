"""What a site remembers of releases: what one of them holds alone, which one is meant, and what is left of it."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.contents import BundleContents
from regwrap.bundle.releases import (
    HeldAlone,
    SiteRelease,
    SiteReleases,
    chosen_release,
    held_alone,
    known_checksum,
    look_at,
    missing_images,
    missing_of,
    moves_to,
    read_releases,
    write_release,
)
from regwrap.core.errors import UsageError
from regwrap.core.model import Digest
from regwrap.core.moves import TagMove
from regwrap.storage import layout
from regwrap.storage.commit import Owner, RealFiles
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from tests.builders import Image, make_image, make_multi_image, make_storage, put, remove, replace_by_fifo, truncate
from tests.bundles import contents_of, listed
from tests.crashing import DyingFiles
from tests.told import Told

OLD, NEW, MULTI = make_image("old"), make_image("new"), make_multi_image("multi")
IMAGES = {"a:1": OLD, "a:latest": OLD, "b:1": NEW, "m:1": MULTI}
LAYER = Digest.of(OLD.blobs[1])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "site", IMAGES)


def release(contents: BundleContents, name: str = "", deployed: str = "2026-01-01") -> SiteRelease:
    return SiteRelease(contents=replace(contents, name=name), deployed=deployed, checksum="")


def bytes_of(*images: Image) -> int:
    return sum(map(len, {data for image in images for data in (*image.blobs, *image.manifests)}))


def test_what_goes_with_a_release_is_what_no_other_one_has(root: Path) -> None:
    """gc tells so much of it before it removes one; an image counts once, whatever tags it has."""
    first, second = release(contents_of(root, "a:1", "a:latest", "b:1", "m:1")), release(contents_of(root, "b:1"))
    third = release(contents_of(root, "b:1", "m:1"))
    blobs = {Digest.of(data) for data in (*OLD.blobs, *OLD.manifests)}
    assert held_alone([first, second, third]) == {
        first.contents.id: HeldAlone(1, len(blobs), bytes_of(OLD)),
        second.contents.id: HeldAlone(0, 0, 0),
        third.contents.id: HeldAlone(0, 0, 0),
    }
    alone = held_alone([first])[first.contents.id]
    assert (alone.images, alone.bytes) == (3, bytes_of(OLD, NEW, MULTI))
    assert held_alone([first, second])[first.contents.id].images == 2


def test_a_release_is_named_by_its_name_or_by_six_digits_of_its_id(root: Path) -> None:
    one, two = release(contents_of(root, "a:1"), "acme-1"), release(contents_of(root, "b:1"), deployed="2026-02-02")
    found = SiteReleases((one, two), ("a file that is none",))
    for wanted, meant in (
        ("acme-1", one),
        (one.contents.id.hex[:6], one),
        (two.contents.id.hex[:6], two),
        (f"{two.contents.id}", two),
        (f"sha256:{two.contents.id.hex[:6]}", two),
    ):
        assert chosen_release(found, wanted, root) is meant
    for wanted in ("acme", two.contents.id.hex[:5], two.contents.id.hex[1:9], "0" * 64):
        with pytest.raises(UsageError) as raised:
            chosen_release(found, wanted, root)
        assert raised.value.message == f"{root} has no record of release {wanted}"
        assert raised.value.detail.splitlines() == [
            f"acme-1, deployed 2026-01-01, id {one.contents.id}",
            f"{two.contents.id.hex[:12]}, deployed 2026-02-02, id {two.contents.id}",
            "a file that is none",
        ]
    with pytest.raises(UsageError) as raised:
        chosen_release(SiteReleases((), ()), "acme-1", root)
    assert raised.value.detail == "no release is recorded there"


def test_a_name_is_meant_before_an_id_that_begins_so(root: Path) -> None:
    one = release(contents_of(root, "a:1"))
    two = release(contents_of(root, "b:1"), one.contents.id.hex[:8])
    found = SiteReleases((one, two), ())
    assert chosen_release(found, one.contents.id.hex[:8], root) is two
    assert chosen_release(found, one.contents.id.hex[:9], root) is one


def nothing(_root: Path) -> None:
    """All of it is there."""


def without_link(path: str) -> Callable[[Path], None]:
    return lambda root: remove(root / path)


def damaged(damage: Callable[[Path], None], digest: Digest) -> Callable[[Path], None]:
    return lambda root: damage(root / layout.blob_path(digest))


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        (nothing, ""),
        (without_link(layout.tag_link("a", "1")), ""),
        (without_link(layout.layer_link("a", LAYER)), f"blob {LAYER.short} is not there"),
        (damaged(truncate, LAYER), f"blob {LAYER.short} is not there"),
        (damaged(replace_by_fifo, LAYER), f"blob {LAYER.short} is not there"),
        (without_link(layout.revision_link("a", OLD.top)), f"manifest {OLD.top.short} is not there"),
    ],
)
def test_what_a_site_lacks_of_an_image_is_said_whatever_its_tag_is(
    root: Path, change: Callable[[Path], None], lack: str
) -> None:
    contents = contents_of(root, *IMAGES)
    change(root)
    assert missing_of(Storage(root), contents.images[0]) == lack
    lines = tuple(f"{name}: {lack}" for name in ("a:1", "a:latest") if lack)
    told = Told()
    assert missing_images(contents, look_at(Storage(root), [*contents.images, *contents.images], told)) == lines
    count = len(contents.images)
    assert (told.steps, told.done) == ([("look", "images of releases", count)], [count]), "each once"


def test_a_platform_that_a_release_leaves_out_is_not_lacking_and_any_other_is(root: Path) -> None:
    (whole,), (some,) = (contents_of(root, entry).images for entry in (listed("m:1"), listed("m:1", "linux/amd64")))
    amd, arm = (Digest.of(raw) for raw in MULTI.manifests[:2])
    remove(root / layout.revision_link("m", arm))
    assert missing_of(Storage(root), some) == ""
    assert missing_of(Storage(root), whole) == f"manifest {arm.short} is not there"
    remove(root / layout.revision_link("m", amd))
    assert missing_of(Storage(root), some) == f"manifest {amd.short} is not there"


def test_the_tags_that_a_release_moves_are_those_that_are_something_else_now(root: Path) -> None:
    contents = contents_of(root, *IMAGES)
    make_storage(root, {"a:latest": NEW})
    remove(root / layout.tag_link("b", "1"))
    assert moves_to(Storage(root), contents) == (
        TagMove(image="a:latest", old=NEW.top, new=OLD.top),
        TagMove(image="b:1", old=None, new=NEW.top),
    )


@dataclass
class OnDisk(DyingFiles):
    """`unsaved` is what a power cut would take now; nothing gets its name while anything is."""

    unsaved: set[str] = field(default_factory=set)

    def write(self, tree: Tree, name: str, data: bytes) -> None:
        super().write(tree, name, data)
        self.unsaved.add(name)

    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None:
        assert self.unsaved == set()
        super().rename(stage, old, tree, new)
        self.unsaved.add(new)

    def sync(self, tree: Tree) -> None:
        super().sync(tree)
        self.unsaved.clear()


def test_a_release_is_remembered_after_a_power_cut_or_was_not_said_to_be(root: Path, tmp_path: Path) -> None:
    """A note of which the release is zeros would hide it from rollback, and one that is lost let gc take its blobs."""
    tree, stage = Tree(root), Tree(tmp_path / "stage")
    stage.root.mkdir()
    files, wanted = OnDisk(RealFiles(Owner.of(tree)), left=100), release(contents_of(root, *IMAGES), "acme-1")
    write_release(tree, wanted, stage=stage, files=files)
    assert files.unsaved == set()
    assert read_releases(tree) == SiteReleases((wanted,), ())
    files.done.clear()
    write_release(tree, replace(wanted, deployed="2027-01-01"), stage=stage, files=files)
    assert files.done == []
    assert read_releases(tree).releases == (wanted,)


def test_what_lies_among_releases_and_is_none_is_told_in_order(root: Path) -> None:
    names = [f"{letter}.txt" for letter in "cabihgfed"]
    for name in (*names, f"{'0' * 64}.json"):  # the last is of a run that was killed
        put(root / ".regwrap/releases" / name, b"?")
    place = root / ".regwrap/releases"
    assert read_releases(Tree(root)) == SiteReleases(
        (), tuple(f"{place}/{name} is no release; left alone" for name in sorted(names))
    )


def test_a_note_is_read_to_a_length_that_none_has(root: Path, tmp_path: Path) -> None:
    """A file of any size that somebody put there would fill the memory; a pipe would be waited for."""
    tree, stage = Tree(root), Tree(tmp_path / "stage")
    stage.root.mkdir()
    wanted = release(contents_of(root, *IMAGES))
    write_release(tree, wanted, stage=stage, files=RealFiles(Owner.of(tree)))
    note = root / f".regwrap/releases/{wanted.contents.id.hex}.note"
    text = note.read_text().rstrip()
    for size, is_read in ((64 * 1024, True), (64 * 1024 + 10, False)):
        note.write_text("{" + " " * (size - len(text)) + text[1:])
        assert note.stat().st_size == size
        assert read_releases(tree).releases == ((wanted,) if is_read else ())
    note.write_text(text)
    replace_by_fifo(note.with_suffix(".json"))
    assert read_releases(tree).releases == ()
    assert "can't be read (it is no regular file)" in read_releases(tree).notes[0]


def test_a_note_on_a_bad_block_hides_nothing_else_and_is_written_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, stage, real = Tree(root), Tree(tmp_path / "stage"), os.fdopen
    stage.root.mkdir()
    bad, good = release(contents_of(root, "a:1")), release(contents_of(root, "b:1"))
    files = RealFiles(Owner.of(tree))
    for each in (bad, good):
        write_release(tree, each, stage=stage, files=files)

    def failing(descriptor: int, mode: str, **options: Any) -> Any:
        if mode == "rb" and f"{Path(f'/proc/self/fd/{descriptor}').readlink()}".endswith(f"{bad.contents.id.hex}.note"):
            os.close(descriptor)
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, mode, **options)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdopen", failing)
        found = read_releases(tree)
        write_release(tree, replace(bad, deployed="2027-01-01"), stage=stage, files=DyingFiles(files, left=100))
    assert found.releases == (good,)
    assert [f"{bad.contents.id.hex}.note can't be read" in note for note in found.notes] == [True]
    assert {r.contents.id: r.deployed for r in read_releases(tree).releases} == {
        good.contents.id: "2026-01-01", bad.contents.id: "2027-01-01",
    }  # fmt: skip


SUM = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (f"{SUM}  bundle.tar\n", SUM),
        (f"{SUM}\n", SUM),
        (SUM, SUM),
        (f"{SUM}\tä.tar\n", SUM),
        (f"{SUM}0  bundle.tar\n", ""),
        (SUM[1:], ""),
        (SUM.upper(), ""),
        (f" {SUM}", ""),
        ("ä" * 40, ""),
        ("", ""),
    ],
)
def test_a_checksum_is_known_where_it_stands_beside_the_bundle(tmp_path: Path, text: str, known: str) -> None:
    bundle = put(tmp_path / "bundle.tar", b"bundle")
    assert known_checksum(bundle) == ""
    put(tmp_path / "bundle.tar.sha256", text.encode())
    assert known_checksum(bundle) == known
    bundle.unlink()
    assert known_checksum(bundle) == ""
