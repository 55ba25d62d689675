"""Deploying a delta: what it requires is looked for first, and a site that lacks something is left as it was."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.delta import since
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import read_releases
from regwrap.commands.deploy import DeployReport, deploy_bundle
from regwrap.commands.releases import adopt_release
from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.storage import layout
from regwrap.storage.commit import RealFiles
from regwrap.storage.store import Storage
from tests.builders import (
    empty,
    flip,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    remove,
    snapshot,
    storage_problems,
)
from tests.bundles import contents_of, older, write_bundle
from tests.crashing import Died, DyingFiles, directory_in_memory
from tests.fakes import Listening

BASE = make_layer("base")
KEPT, NEW = (make_image(seed, layers=[BASE, make_layer(seed)]) for seed in ("kept", "new"))
FIRST = {"kept:1": KEPT, "multi:1": make_multi_image("multi")}
SECOND = {**FIRST, "app:2": NEW}


def deploy(bundle: Path, root: Path, *, hashed: bool = False, dry_run: bool = False, left: int = 10**9) -> DeployReport:
    options = ImportOptions(existing=Existing.FAIL, dry_run=dry_run, lock_timeout=0, hashed=hashed)
    return deploy_bundle(bundle, root, options, Silent(), lambda owner: DyingFiles(RealFiles(owner), left=left))


def state(root: Path) -> dict[str, tuple[str, int, int, str]]:
    """All but regwrap's lock and the times in its notes."""
    kept = (".regwrap/lock", ".note")
    return {path: item for path, item in snapshot(root).items() if path != ".regwrap" and not path.endswith(kept)}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    root = make_storage(tmp_path / "archive", SECOND)
    return write_bundle(tmp_path / "v2.tar", replace(contents_of(root, *SECOND), name="acme-2"), root)


@pytest.fixture
def delta(tmp_path: Path, whole: Path) -> Path:
    root = whole.with_name("archive")
    first = replace(contents_of(root, *FIRST), name="acme-1")
    second = replace(contents_of(root, *SECOND), name="acme-2")
    return write_bundle(tmp_path / "v2-delta.tar", since(second, [older(first)]), root)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "site", FIRST)


@pytest.mark.slow
def test_a_site_with_the_base_is_the_same_as_after_the_whole_bundle(
    whole: Path, delta: Path, site: Path, tmp_path: Path
) -> None:
    other = make_storage(tmp_path / "other", FIRST)
    deploy(whole, other)
    report = deploy(delta, site)
    assert state(site) == state(other)
    assert storage_problems(site) == set()
    assert (report.images, report.tags_added, report.blobs_added) == (3, ("app:2",), 3)
    (release,) = read_releases(Storage(site).tree).releases
    assert release.contents == replace(contents_of(other, *SECOND), name="acme-2")  # it is remembered as a whole
    assert f"{release.contents.id}" == report.id
    assert deploy(delta, site, hashed=True).blobs_added == 0


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_a_site_lacks_is_named_with_its_images_and_release_and_nothing_is_changed(
    delta: Path, site: Path, *, dry_run: bool
) -> None:
    remove(site / layout.blob_path(Digest.of(BASE)))
    before = snapshot(site)
    with pytest.raises(ImagesFailedError, match=f"{site} lacks 1 of them .* of release acme-1; nothing") as told:
        deploy(delta, site, dry_run=dry_run)
    (line,) = told.value.problems
    assert line.startswith(f"blob {Digest.of(BASE)} (")
    assert "of app:2, kept:1; it is in release acme-1" in line
    assert "regwrap package --since" in told.value.hint
    assert snapshot(site) == before


def test_a_directory_that_is_not_there_is_not_made(delta: Path, tmp_path: Path) -> None:
    with pytest.raises(ImagesFailedError, match="lacks"):
        deploy(delta, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_required_blob_of_another_size_is_refused(delta: Path, site: Path) -> None:
    empty(site / layout.blob_path(Digest.of(BASE)))
    before = snapshot(site)
    with pytest.raises(IntegrityError, match="does not fit") as told:
        deploy(delta, site)
    assert f"has 0 bytes in {site}" in told.value.problems[0]
    assert snapshot(site) == before


@pytest.mark.slow
def test_with_hash_a_required_blob_of_other_bytes_is_refused(delta: Path, whole: Path, site: Path) -> None:
    flip(site / layout.blob_path(Digest.of(BASE)))
    before = state(site)
    for dry_run in (True, False):
        with pytest.raises(IntegrityError, match=r"has 1 damaged blob that .* requires") as told:
            deploy(delta, site, hashed=True, dry_run=dry_run)
        assert f"{Digest.of(BASE)}" in told.value.problems[0]
    assert state(site) == before
    deploy(whole, site)  # which the hint says
    assert storage_problems(site) == set()


def test_what_is_required_is_hashed_only_where_that_is_asked_for(delta: Path, site: Path) -> None:
    """A site of terabytes is not read for a delta of a megabyte."""
    flip(site / layout.blob_path(Digest.of(BASE)))
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
    assert deploy_bundle(delta, site, options, Silent()).tags_added == ("app:2",)


@pytest.mark.parametrize(("name", "hashed", "hashes"), [("whole", True, 0), ("delta", False, 0), ("delta", True, 1)])
def test_how_far_a_deploy_is_can_be_seen(
    delta: Path, whole: Path, site: Path, *, name: str, hashed: bool, hashes: int
) -> None:
    listening, bundle = Listening(), whole if name == "whole" else delta
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0, hashed=hashed)
    deploy_bundle(bundle, site, options, listening)
    with opened_bundle(bundle) as opened:
        steps = [("hash", opened.contents.required_bytes)] * hashes + [("deploy", opened.contents.blob_bytes)]
    assert listening.steps == steps
    assert sum(listening.told) == sum(expected for _step, expected in steps)


def test_a_required_manifest_that_is_damaged_is_found_in_any_case(delta: Path, site: Path) -> None:
    flip(site / layout.blob_path(KEPT.top))
    before = snapshot(site)
    with pytest.raises(IntegrityError, match="inconsistent"):
        deploy(delta, site)
    assert snapshot(site) == before


def test_a_release_that_came_as_a_delta_by_tar_is_adopted_as_a_whole(delta: Path, whole: Path, site: Path) -> None:
    deploy(whole, site)
    for path in (site / ".regwrap/releases").iterdir():
        path.unlink()
    adopt_release(delta, site, lock_timeout=0, listener=Silent())
    (release,) = read_releases(Storage(site).tree).releases
    assert release.contents.required == ()
    assert release.contents.name == "acme-2"


@pytest.fixture
def memory() -> Iterator[Path]:
    with directory_in_memory() as directory:
        yield directory


@pytest.mark.exhaustive
def test_killed_at_any_moment_the_site_is_whole_and_the_next_run_ends_it(delta: Path, memory: Path) -> None:
    for left in range(200):
        site = make_storage(memory / f"{left}", FIRST)
        try:
            deploy(delta, site, left=left)
        except Died:
            assert storage_problems(site) == set()
            deploy(delta, site)
            assert storage_problems(site) == set()
            assert Storage(site).resolve("app", "2") == NEW.top
            continue
        return
    raise AssertionError("it never came to its end")
