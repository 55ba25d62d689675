"""Whatever may take long says what it does and how much is left, to its end."""

import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.opened import opened_contents
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.export import export_image_set
from regwrap.commands.gc import GcOptions, collect_garbage
from regwrap.commands.import_tree import import_tree
from regwrap.commands.lock import write_lock
from regwrap.commands.sync import SyncOptions
from regwrap.core.moves import Existing
from regwrap.forms.tree import Form
from regwrap.lists.imagelist import HOST_IS_DROPPED, parse_images
from regwrap.lists.wanted import Wanted
from regwrap.report.progress import Progress
from regwrap.report.terminal import Folds, Reader
from regwrap.storage.gc import Keep
from regwrap.storage.sweep import RealDisk
from tests.builders import make_image, make_multi_image, make_storage
from tests.bundles import make_bundle
from tests.fakes import Scripted
from tests.told import Told
from tests.unit.transfer.between import Between, between
from tests.unit.transfer.test_sync import Heard

IMAGES = {"app/web:1": make_multi_image("multi"), "app/web:2": make_image("web"), "z:1": make_image("z")}
TAKING = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)


def all_data() -> set[bytes]:
    return {data for image in IMAGES.values() for data in (*image.manifests, *image.blobs)}


class _Told(Told, Heard):
    def __init__(self) -> None:
        Told.__init__(self)
        Heard.__init__(self)


@pytest.fixture
def told() -> _Told:
    return _Told()


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "archive", IMAGES) as two:
        yield two


def totals(told: Told) -> dict[str, int | None]:
    """Each step was done as far as it had said, or to an end that nobody knew."""
    assert [(step, done) for step, done in zip(told.steps, told.done, strict=True) if step[2] not in {None, done}] == []
    return {f"{step}: {things}": done for (step, things, _total), done in zip(told.steps, told.done, strict=True)}


def test_gc_reads_a_repository_after_the_other(tmp_path: Path, told: _Told) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    options = GcOptions(dry_run=True, offline=True, lock_timeout=0)
    collect_garbage(root, Keep(names=None, last=None), options, told, RealDisk())
    found = totals(told)
    assert found["gc: repositories read"] == 3  # app only has another one in it
    assert found["gc: directories of blobs listed"] == len({path.parent for path in root.rglob("sha256/??/*")})


@pytest.mark.slow
def test_deploy_puts_links_and_tags_into_place(tmp_path: Path, told: _Told) -> None:
    bundle = make_bundle(tmp_path, IMAGES)
    deploy_bundle(bundle, tmp_path / "site", TAKING, told)
    links = list((tmp_path / "site").rglob("link"))
    found = totals(told)
    assert found["commit: links written"] == len([path for path in links if "/tags/" not in f"{path}"])
    blobs = len(list((tmp_path / "site").rglob("data")))
    assert found["commit: blobs, links and tags in place"] == found["commit: links written"] + blobs + len(IMAGES)


def test_verify_counts_all_bytes_that_it_expects_of_small_blobs_too(tmp_path: Path, told: _Told) -> None:
    for path in (make_bundle(tmp_path, IMAGES), tmp_path / "archive"):
        with opened_contents(path, hashed=True, listener=told):
            pass
    assert totals(told)["verify: "] == sum(len(data) for data in all_data())


@pytest.mark.slow
def test_export_and_import_read_all_images_first(tmp_path: Path, told: _Told, two: Between) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    export_image_set(replace(two.job(), listener=told), root, tmp_path / "tree", form=Form.DIR, dry_run=False)
    assert totals(told)["read: repositories"] == 2
    back = Told()
    import_tree(f"{tmp_path}/tree", tmp_path / "back", TAKING, back)
    assert totals(back)["read: images"] == 3


@pytest.mark.slow
def test_lock_looks_at_each_image_also_at_one_that_is_absent(tmp_path: Path, told: _Told, two: Between) -> None:
    images = parse_images("".join(f"{line}\n" for line in (*IMAGES, "absent:1")).encode(), "images.list")
    wanted = Wanted(images=images, rules=(), rewrite=HOST_IS_DROPPED)
    assert len(write_lock(replace(two.job(), listener=told), wanted, tmp_path / "lock").failed) == 1
    assert totals(told) == {"lock: images looked at": 4}


def test_sync_looks_at_each_image_before_it_copies(told: _Told, two: Between) -> None:
    two.run(replace(two.job(), listener=told), *IMAGES, "absent:1", options=SyncOptions(dry_run=True))
    assert totals(told) == {"look: images at both ends": 4}


def test_the_line_says_how_many_and_what_is_left() -> None:
    progress = Progress(StringIO(), quiet=False, reader=Reader(live=False, colours=False, folds=Folds.NONE))
    progress.count("lock", "images looked at", 10_000)
    assert progress.status() == "lock: 0 of 10,000 images looked at"
    progress.on_things(2_500)
    assert re.fullmatch(r"lock: 2,500 of 10,000 images looked at, \d+ s left", progress.status())
    progress.on_things(7_500)
    assert progress.status() == ""
    progress.count("gc", "repositories found")
    progress.on_things()
    assert progress.status() == "gc: 1 repositories found"
    progress.expect("sync", 10)
    assert progress.status().startswith("sync: 0 B of 10 B, 0 B/s")
