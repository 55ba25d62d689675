"""What a site remembers: each release that came, whole or not at all, and what is left of it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.releases import read_releases
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.releases import ReleaseState, adopt_release, list_releases, look_at_site
from regwrap.core.errors import ImagesFailedError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.report.site_text import releases_text
from regwrap.storage import layout
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.tree import Tree
from tests.builders import flip, make_image, make_multi_image, make_storage, put, remove
from tests.bundles import make_bundle
from tests.crashing import Died, DyingFiles, always, directory_in_memory

OLD, NEW, MULTI = make_image("old"), make_image("new"), make_multi_image("multi")
FIRST = {"a:1": OLD, "a:latest": OLD, "m:1": MULTI}
SECOND = {"a:2": NEW, "a:latest": NEW, "m:1": MULTI}


def living(owner: Owner) -> DyingFiles:
    return DyingFiles(RealFiles(owner), left=10**9)


def deploy(bundle: Path, root: Path, files_for: Callable[[Owner], Files] = living, *, dry_run: bool = False) -> None:
    options = ImportOptions(existing=Existing.REPLACE, dry_run=dry_run, lock_timeout=0)
    deploy_bundle(bundle, root, options, Silent(), files_for)


def states(root: Path) -> tuple[ReleaseState, ...]:
    return list_releases(root, lock_timeout=0, listener=Silent()).releases


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "first", FIRST)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "second", SECOND)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "site"


@pytest.mark.slow
def test_a_site_knows_what_came_and_what_was_replaced(root: Path, first: Path, second: Path) -> None:
    put(first.with_name(f"{first.name}.sha256"), b"f" * 64 + b"  bundle.tar\n")
    deploy(first, root)
    (only,) = states(root)
    assert (only.state, only.images, only.sha256, only.missing, only.replaced) == ("current", 3, "f" * 64, (), ())
    # two may come within one second, and gc keeps those that came last
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", only.deployed)
    deploy(second, root)
    found = {state.id: state for state in states(root)}
    earlier = found.pop(only.id)
    assert earlier.replaced == ("a:latest",)
    (other,) = found.values()
    assert (other.state, other.sha256) == ("current", "")
    # each has an image, under two tags, that the other one lacks: a layer, its config, its manifest
    assert (earlier.alone_images, other.alone_images) == (1, 1)
    assert earlier.alone_bytes == sum(map(len, (*OLD.blobs, *OLD.manifests)))


@pytest.mark.slow
def test_every_tag_of_a_site_knows_its_releases(root: Path, first: Path, second: Path) -> None:
    deploy(first, root)
    deploy(second, root)
    make_storage(root, {"own:1": NEW})
    site = look_at_site(root, lock_timeout=0, listener=Silent())
    one, two = (release.id.removeprefix("sha256:")[:12] for release in site.releases.releases)
    assert {image.image: image.releases for image in site.images} == {
        "a:1": (one,),
        "a:2": (two,),
        "a:latest": (two,),
        "m:1": (one, two),
        "own:1": (),
    }
    assert site.in_use == two
    assert site.bytes == sum(
        map(len, {*OLD.blobs, *OLD.manifests, *NEW.blobs, *NEW.manifests, *MULTI.blobs, *MULTI.manifests})
    )


@pytest.mark.slow
def test_to_deploy_again_or_only_to_look_adds_nothing(root: Path, first: Path, second: Path) -> None:
    deploy(first, root)
    before = states(root)
    put(first.with_name(f"{first.name}.sha256"), b"f" * 64 + b"  bundle.tar\n")
    deploy(first, root)
    deploy(second, root, dry_run=True)
    assert states(root) == before
    assert {path.name for path in (root / ".regwrap").iterdir()} == {"lock", "releases"}


def test_what_is_missing_is_named(root: Path, first: Path) -> None:
    deploy(first, root)
    child, blob = Digest.of(MULTI.manifests[0]), Digest.of(OLD.blobs[1])
    remove(root / layout.revision_link("m", child))
    remove(root / layout.blob_path(blob))
    (state,) = states(root)
    assert state.state == "incomplete"
    assert state.missing == (
        f"a:1: blob {blob.short} is not there",
        f"a:latest: blob {blob.short} is not there",
        f"m:1: manifest {child.short} is not there",
    )


@pytest.mark.slow
def test_the_table_says_which(root: Path, first: Path, second: Path) -> None:
    report = list_releases(make_storage(root, {}), lock_timeout=0, listener=Silent())
    assert releases_text(report) == f"{root}: no release is recorded here"
    deploy(first, root)
    deploy(second, root)
    text = releases_text(list_releases(root, lock_timeout=0, listener=Silent()))
    assert text.splitlines()[0].split() == ["NAME", "ID", "DEPLOYED", "IMAGES", "SIZE", "STATE"]
    assert "partly replaced: a:latest" in text
    assert "current" in text


@pytest.mark.slow
def test_foreign_and_damaged_files_hide_nothing(root: Path, first: Path, second: Path) -> None:
    deploy(first, root)
    deploy(second, root)
    place = root / ".regwrap/releases"
    damaged = min(place.glob("*.note"))
    flip(damaged.with_suffix(".json"))
    put(place / "README", b"hello")
    put(place / f"{'0' * 64}.note", json.dumps({"deployed": 5}).encode())
    found = read_releases(Tree(root))
    assert len(found.releases) == 1
    assert len(found.notes) == 3
    deploy(first, root)  # mends it, if it is this one
    deploy(second, root)
    assert len(read_releases(Tree(root)).releases) == 2
    for name in ("README is no release", f"{'0' * 64}.note can't be read", f"{damaged.name} can't be read"):
        assert any(name in note for note in found.notes), found.notes


@pytest.mark.parametrize("damage", [b"", b"{", b"[" * 100_000, b"[]", b'{"deployed": 5, "sha256": ""}', None])
def test_a_note_that_says_nothing_is_written_anew_by_the_next_deploy(
    root: Path, first: Path, damage: bytes | None
) -> None:
    """Else rollback would not know the release for good, though all of it is there."""
    deploy(first, root)
    (note,) = (root / ".regwrap/releases").glob("*.note")
    note.unlink() if damage is None else note.write_bytes(damage)
    assert read_releases(Tree(root)).releases == ()
    deploy(first, root)
    assert [release.contents.id.hex for release in read_releases(Tree(root)).releases] == [note.stem]
    assert read_releases(Tree(root)).notes == ()


def test_a_release_that_came_another_way_is_adopted_if_all_of_it_is_there(root: Path, first: Path) -> None:
    make_storage(root, {"a:1": OLD, "a:latest": OLD})
    with pytest.raises(ImagesFailedError, match="lacks 1 of 3 images") as error:
        adopt_release(first, root, lock_timeout=0, listener=Silent())
    assert error.value.detail == f"m:1: manifest {MULTI.top.short} is not there"
    assert states(root) == ()
    make_storage(root, {"m:1": MULTI})
    adopt_release(first, root, lock_timeout=0, listener=Silent())
    assert [state.state for state in states(root)] == ["current"]
    assert {path.name for path in (root / ".regwrap").iterdir()} == {"lock", "releases"}


@pytest.mark.exhaustive
@pytest.mark.parametrize("half", [False, True])
def test_a_crash_at_any_moment_notes_nothing_that_is_not_there(first: Path, second: Path, half: bool) -> None:
    with directory_in_memory() as memory:
        for left in range(1000):
            root = memory / "site"
            deploy(first, root)
            files = DyingFiles(RealFiles(Owner.of(Tree(root))), left=left, half=half)
            try:
                deploy(second, root, always(files))
            except Died:
                found = read_releases(Tree(root))
                assert found.notes == ()
                assert {state.id for state in states(root) if state.state == "current"} or len(found.releases) == 1
                deploy(second, root)
                assert [len(read_releases(Tree(root)).releases), read_releases(Tree(root)).notes] == [2, ()]
                shutil.rmtree(root)
                continue
            assert left > 10
            return
    raise AssertionError("it never ended")
