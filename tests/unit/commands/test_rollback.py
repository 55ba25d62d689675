"""Going back to a release, and forward again: all of it is looked at first, and the next run mends a crash."""

import shutil
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.releases import read_releases
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.releases import list_releases
from regwrap.commands.rollback import RollbackOptions, RollbackReport, rollback
from regwrap.core.errors import ImagesFailedError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing, TagMove
from regwrap.report.site_text import rollback_text
from regwrap.storage import layout
from regwrap.storage.commit import Owner, RealFiles
from regwrap.storage.tree import Tree
from tests.builders import make_image, make_multi_image, remove, snapshot, storage_problems
from tests.bundles import make_bundle
from tests.crashing import Died, DyingFiles, always, directory_in_memory

OLD, NEW, MULTI = make_image("old"), make_image("new"), make_multi_image("multi")
FIRST = {"a:1": OLD, "a:latest": OLD, "m:1": MULTI, "only:1": OLD}
SECOND = {"a:2": NEW, "a:latest": NEW, "m:1": OLD}


def living(owner: Owner) -> DyingFiles:
    return DyingFiles(RealFiles(owner), left=10**9)


def site_in(place: Path) -> Path:
    """A site with both releases, the second one current."""
    for name, images in (("first", FIRST), ("second", SECOND)):
        bundle = make_bundle(place / name, images)
        options = ImportOptions(existing=Existing.REPLACE, dry_run=False, lock_timeout=0)
        deploy_bundle(bundle, place / "site", options, Silent(), living)
    return place / "site"


def ids_of(root: Path) -> tuple[str, str]:
    """Of the first and of the second release."""
    ids = {len(release.contents.images): str(release.contents.id) for release in read_releases(Tree(root)).releases}
    return ids[4], ids[3]


def go_to(root: Path, release: str, *, dry_run: bool = False) -> RollbackReport:
    return rollback(root, release, RollbackOptions(dry_run=dry_run, lock_timeout=0), Silent(), living)


def states(root: Path) -> dict[str, str]:
    return {state.id: state.state for state in list_releases(root, lock_timeout=0, listener=Silent()).releases}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return site_in(tmp_path)


@pytest.mark.slow
def test_back_and_forward_again(site: Path) -> None:
    first, second = ids_of(site)
    assert states(site) == {first: "partly replaced", second: "current"}
    before = snapshot(site)
    report = go_to(site, first)
    assert report.moved == (
        TagMove(image="a:latest", old=NEW.top, new=OLD.top),
        TagMove(image="m:1", old=OLD.top, new=MULTI.top),
    )
    assert states(site) == {first: "current", second: "partly replaced"}
    assert storage_problems(site) == set()
    assert go_to(site, first).moved == ()
    assert len(go_to(site, second).moved) == 2
    assert snapshot(site) == before


@pytest.mark.slow
def test_a_dry_run_says_both_digests_and_changes_nothing(site: Path) -> None:
    first, _second = ids_of(site)
    before = snapshot(site)
    report = go_to(site, first, dry_run=True)
    assert report.moved == go_to(site, first, dry_run=True).moved
    assert snapshot(site) == before
    lines = rollback_text(report).splitlines()
    assert lines[0].split() == ["a:latest", f"{NEW.top}", "->", f"{OLD.top}"]
    assert lines[-1] == f"{site}: {first[7:19]} would be current: 2 tags would move, 2 unchanged"


@pytest.mark.slow
def test_a_tag_that_is_gone_comes_back(site: Path) -> None:
    first, _second = ids_of(site)
    shutil.rmtree(site / layout.tag_path("only", "1"))
    report = go_to(site, first)
    assert TagMove(image="only:1", old=None, new=OLD.top) in report.moved
    assert "only:1    no such tag -> " in rollback_text(report)
    assert states(site)[first] == "current"


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_missing_is_named_and_nothing_changes(site: Path, dry_run: bool) -> None:
    first, _second = ids_of(site)
    blob, child = Digest.of(MULTI.blobs[1]), Digest.of(MULTI.manifests[0])
    remove(site / layout.blob_path(blob))
    before = snapshot(site)
    with pytest.raises(ImagesFailedError, match="lacks 1 of 4 images") as error:
        go_to(site, first, dry_run=dry_run)
    assert error.value.detail == f"m:1: blob {blob.short} is not there"
    remove(site / layout.blob_path(child))
    with pytest.raises(ImagesFailedError, match="nothing was changed"):
        go_to(site, first, dry_run=dry_run)
    assert {path: state for path, state in snapshot(site).items() if path != layout.blob_path(child)} == {
        path: state for path, state in before.items() if path != layout.blob_path(child)
    }


@pytest.mark.slow
def test_a_release_is_named_by_its_name_or_the_start_of_its_id(site: Path) -> None:
    first, _second = ids_of(site)
    assert len(go_to(site, first[7:15]).moved) == 2
    assert go_to(site, first).moved == ()
    with pytest.raises(UsageError, match="has no record of release acme") as error:
        go_to(site, "acme")
    assert first in error.value.detail
    with pytest.raises(UsageError, match="has no record of release"):
        go_to(site, first[7:9])


@pytest.mark.exhaustive
@pytest.mark.parametrize("half", [False, True])
def test_a_crash_at_any_moment_is_mended_by_the_next_run(half: bool) -> None:
    with directory_in_memory() as memory:
        template = site_in(memory / "template")
        first, second = ids_of(template)
        wanted = memory / "wanted"
        shutil.copytree(template, wanted)
        go_to(wanted, first)
        expected = snapshot(wanted)
        for left in range(1000):
            root = memory / f"site-{left}"
            shutil.copytree(template, root)
            files = DyingFiles(RealFiles(Owner.of(Tree(root))), left=left, half=half)
            options = RollbackOptions(dry_run=False, lock_timeout=0)
            try:
                rollback(root, first, options, Silent(), always(files))
            except Died:
                assert storage_problems(root) == set()
                assert set(states(root).values()) <= {"current", "partly replaced"}
                go_to(root, first)
                assert snapshot(root) == expected
                shutil.rmtree(root)
                continue
            assert left > 5
            assert second != first
            return
    raise AssertionError("it never ended")
