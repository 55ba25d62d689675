"""gc by releases: what is kept of them is kept by digest, and the release in use is never taken by accident."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.releases import read_releases
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.gc import GcOptions, GcReport, collect_garbage, keep_of
from regwrap.commands.gc_releases import KeptReleases
from regwrap.commands.releases import list_releases
from regwrap.commands.rollback import RollbackOptions, rollback
from regwrap.core.errors import UsageError
from regwrap.core.listener import Silent
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.report.site_text import gc_text
from regwrap.storage import layout
from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import Tree
from tests.builders import Image, add_untagged, make_image, make_multi_image, put, snapshot, storage_problems
from tests.bundles import listed, make_bundle

ONE, TWO, THREE, MULTI, BASE = (
    make_image("one"), make_image("two"), make_image("three"), make_multi_image("multi"), make_image("base"),
)  # fmt: skip
RELEASES = {
    "acme-1": {"app:stable": ONE, "base:1": BASE, "web:1": MULTI},
    "acme-2": {"app:stable": TWO, "base:1": BASE, "tool:2": TWO},
    "acme-3": {"app:stable": THREE, "base:1": BASE, "tool:3": THREE},
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three releases, the last one in use, deployed a second apart."""
    root = tmp_path / "site"
    for number, (name, images) in enumerate(RELEASES.items()):
        bundle = make_bundle(tmp_path / name, images, name=name)
        deploy_bundle(bundle, root, ImportOptions(existing=Existing.REPLACE, dry_run=False, lock_timeout=0), Silent())
        (note,) = (p for p in (root / ".regwrap/releases").glob("*.note") if named(p) == name)
        put(note, json.dumps({"deployed": f"2026-01-0{number + 1}T00:00:00+00:00", "sha256": ""}).encode())
    return root


def registry_state(root: Path) -> dict[str, tuple[str, int, int, str]]:
    return {path: state for path, state in snapshot(root).items() if path != ".regwrap/lock"}


def named(note: Path) -> str:
    return str(json.loads(note.with_suffix(".json").read_bytes())["name"])


def gc(
    root: Path, *names: str, last: int | None = None, images: tuple[str, ...] | None = None, drop: bool = False,
    dry_run: bool = False,
) -> GcReport:  # fmt: skip
    releases = KeptReleases(last=last, names=names, drop_current=drop)
    entries = [listed(image) for image in images or ()]
    keep = keep_of(entries if images is not None or releases.wanted else None, None)
    options = GcOptions(dry_run=dry_run, offline=True, lock_timeout=0, releases=releases)
    return collect_garbage(root, keep, options, Silent(), RealDisk())


def states(root: Path) -> dict[str, str]:
    return {state.name: state.state for state in list_releases(root, lock_timeout=0, listener=Silent()).releases}


@pytest.mark.slow
def test_the_last_releases_stay_whole_also_where_tags_have_moved(site: Path) -> None:
    report = gc(site, last=2)
    assert states(site) == {"acme-1": "incomplete", "acme-2": "partly replaced", "acme-3": "current"}
    assert storage_problems(site) == set()
    assert [(item.name, item.kept, item.lost) for item in report.releases] == [
        ("acme-1", False, 2), ("acme-2", True, 0), ("acme-3", True, 0),
    ]  # fmt: skip
    assert {image.image for image in report.images} == {f"app@{ONE.top}", "web:1"}
    assert next(image.reason for image in report.images if image.image == "web:1") == "in no kept release or list"
    rollback(site, "acme-2", RollbackOptions(dry_run=False, lock_timeout=0), Silent())
    assert states(site)["acme-2"] == "current"


@pytest.mark.slow
def test_a_dry_run_says_what_each_release_alone_holds(site: Path) -> None:
    before = registry_state(site)
    report = gc(site, last=1, dry_run=True)
    assert registry_state(site) == before
    assert {item.name: item.alone_bytes for item in report.releases} == {
        "acme-1": size_of(ONE, MULTI), "acme-2": size_of(TWO), "acme-3": size_of(THREE),
    }  # fmt: skip
    lines = {line.split()[0]: line for line in gc_text(report, site).splitlines() if line.startswith("acme")}
    assert lines["acme-1"].endswith("loses 2 images")
    assert lines["acme-2"].endswith("loses 2 images")
    assert lines["acme-3"].endswith("kept")


def size_of(*images: Image) -> int:
    return sum(len(data) for data in {data for image in images for data in (*image.blobs, *image.manifests)})


@pytest.mark.slow
def test_the_release_in_use_is_kept_though_nobody_asked_for_it(site: Path) -> None:
    rollback(site, "acme-1", RollbackOptions(dry_run=False, lock_timeout=0), Silent())
    report = gc(site, last=1)
    assert "release acme-1 is in use here and is kept too; --drop-current lets it go" in report.notes
    assert states(site) == {"acme-1": "current", "acme-2": "incomplete", "acme-3": "partly replaced"}
    gc(site, images=("tool:3",))
    assert states(site)["acme-1"] == "current"
    dropped = gc(site, "acme-3", drop=True)
    assert not any("in use" in note for note in dropped.notes)
    assert states(site)["acme-1"] == "incomplete"


@pytest.mark.slow
def test_a_release_in_use_may_have_lost_a_tag(site: Path) -> None:
    shutil.rmtree(site / layout.tag_path("tool", "3"))
    notes = gc(site, images=("base:1",), dry_run=True).notes
    assert "release acme-3 is in use here and is kept too; --drop-current lets it go" in notes


@pytest.mark.slow
def test_lists_and_releases_add_up(site: Path) -> None:
    gc(site, "acme-3", images=("web:1",))
    assert (site / layout.tag_link("web", "1")).is_file()
    assert states(site) == {"acme-1": "incomplete", "acme-2": "incomplete", "acme-3": "current"}


@pytest.mark.slow
def test_what_is_about_a_kept_release_stays(site: Path) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": str(TWO.top), "size": len(TWO.raw)}
    document = {**json.loads(TWO.raw), "subject": subject}
    signature = Image(manifests=(json.dumps(document).encode(),), blobs=TWO.blobs)
    add_untagged(site, "app", signature)
    gc(site, last=2)
    assert (site / layout.revision_link("app", Digest.of(signature.raw))).is_file()
    gc(site, last=1)
    assert not (site / layout.revision_link("app", Digest.of(signature.raw))).exists()


@pytest.mark.slow
def test_without_any_choice_tags_stay_and_the_loss_is_told(site: Path) -> None:
    report = gc(site)
    assert {item.name: item.lost for item in report.releases} == {"acme-1": 1, "acme-2": 1, "acme-3": 0}
    assert "acme-1" in gc_text(report, site)
    assert "acme-3" not in gc_text(report, site)


@pytest.mark.slow
def test_a_release_that_is_not_noted_is_named_and_nothing_goes(site: Path, tmp_path: Path) -> None:
    before = registry_state(site)
    with pytest.raises(UsageError, match="has no record of release acme-9"):
        gc(site, "acme-9")
    assert registry_state(site) == before
    plain = make_bundle(tmp_path / "plain", {"app:1": ONE}).with_name("archive")
    with pytest.raises(UsageError, match=r"has no record of a release$"):
        gc(plain, last=2)
    assert read_releases(Tree(plain)).releases == ()


def reads_of(call: Callable[[], object]) -> int:
    """How often the kernel was asked for bytes of a file meanwhile."""

    def count() -> int:
        return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["syscr"])

    before = count()
    call()
    return count() - before


@pytest.mark.exhaustive
def test_what_gc_reads_grows_with_the_images_and_not_with_the_releases_that_share_them(tmp_path: Path) -> None:
    images = {f"app-{number:02}:1": make_image(f"{number % 4}") for number in range(40)}
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
    root, reads = tmp_path / "site", []
    for number in range(9):
        deploy_bundle(make_bundle(tmp_path / f"{number}", images, name=f"acme-{number}"), root, options, Silent())
        if number in {0, 8}:
            reads.append(reads_of(lambda: gc(root, last=9, dry_run=True)))
    first, last = reads
    assert first > len(images)  # each tag and each manifest at least
    assert last - first <= 8 * 8  # two small files a release, and never its images again
