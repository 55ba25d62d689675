"""Whatever may take long says what it does and how much is left, to its end."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Final

import pytest

from regwrap.bundle.base import Base, StorageBase
from regwrap.bundle.delta import since
from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.examine_incoming import Arrival, verify_incoming
from regwrap.bundle.image_set import ImageSet
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.opened import opened_contents
from regwrap.bundle.select import select_images
from regwrap.bundle.stream import streamed_bundle
from regwrap.bundle.volume_stream import never, volume_stream
from regwrap.bundle.volume_target import VolumeTarget
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.commands.direct import DirectOptions, direct_bundle
from regwrap.commands.export import ExportOptions, export_image_set, export_images
from regwrap.commands.gc import GcOptions, collect_garbage
from regwrap.commands.import_tree import import_tree
from regwrap.commands.join import join_bundles
from regwrap.commands.lock import write_lock
from regwrap.commands.package import PackageOptions, Strategy
from regwrap.commands.release import release_images
from regwrap.commands.releases import look_at_site
from regwrap.commands.rollback import RollbackOptions, rollback
from regwrap.commands.sync import SyncOptions
from regwrap.commands.verify_registry import RegistryCheck, verify_registry
from regwrap.core.listener import SILENT
from regwrap.core.location import Mirror
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.core.signed_rule import SignedRule
from regwrap.forms.tree import Form
from regwrap.lists.imagelist import HOST_IS_DROPPED, parse_images
from regwrap.lists.wanted import Wanted
from regwrap.report.progress import Pace, Progress
from regwrap.report.terminal import Folds, Reader
from regwrap.storage.commit import RealFiles
from regwrap.storage.gc import Keep, find_garbage
from regwrap.storage.store import Storage
from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import Tree
from regwrap.transfer.run import SyncReport
from tests.builders import make_image, make_multi_image, make_storage
from tests.bundles import contents_of, listed, make_bundle, older, write_bundle
from tests.fakes import Scripted
from tests.told import Told
from tests.unit.cli.programs import curl
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


@dataclass(frozen=True, kw_only=True)
class Places:
    """A storage with all images, the same as a bundle and in volumes; `delta` lacks those of the first image."""

    archive: Path
    bundle: Path
    volumes: Path
    delta: Path
    new: Path

    @property
    def bases(self) -> tuple[Base, ...]:
        return (StorageBase(Storage(self.archive)),)


def places_in(directory: Path) -> Places:
    bundle, archive = make_bundle(directory, IMAGES), directory / "archive"
    target = VolumeTarget(output=directory / "volumes.tar", size=4096)
    with streamed_bundle(select_images(Storage(archive), tuple(map(listed, IMAGES))), target, SILENT, hashed=True):
        pass
    first = older(contents_of(archive, next(iter(IMAGES))))
    delta = write_bundle(directory / "delta.tar", since(contents_of(archive, *IMAGES), [first]), archive)
    return Places(archive=archive, bundle=bundle, volumes=target.output, delta=delta, new=directory / "new")


def totals(told: Told) -> dict[str, int | None]:
    """Each step was done as far as it had said, or to an end that nobody knew."""
    assert [(step, done) for step, done in zip(told.steps, told.done, strict=True) if step[2] not in {None, done}] == []
    return {f"{step}: {things}": done for (step, things, _total), done in zip(told.steps, told.done, strict=True)}


def test_gc_reads_an_image_after_the_other(tmp_path: Path, told: _Told) -> None:
    """One repository may have ten thousand."""
    root = make_storage(tmp_path / "root", IMAGES)
    options = GcOptions(dry_run=True, offline=True, lock_timeout=0)
    collect_garbage(root, Keep(names=None, last=None), options, told, RealDisk())
    found = totals(told)
    assert found["gc: tags found"] == found["gc: images read"] == 3
    assert found["gc: directories of blobs listed"] == len({path.parent for path in root.rglob("sha256/??/*")})


def test_gc_counts_what_it_does_not_keep_and_what_only_a_release_keeps(tmp_path: Path, told: _Told) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    keep = Keep(names=frozenset({"app/web:1"}), last=1, digests=frozenset({("app/web", IMAGES["app/web:2"].top)}))
    find_garbage(Storage(root), keep, told)
    assert totals(told)["gc: images read"] == len(IMAGES) + 1


def test_verify_reads_tag_after_tag_and_each_repositorys_links(tmp_path: Path, told: _Told) -> None:
    verify_storage(make_storage(tmp_path / "root", IMAGES), None, told)
    found = totals(told)
    assert (found["read: tags found"], found["verify: tags and repositories read"]) == (3, 3 + 2)


class Flushing(RealFiles):
    """What was told when the disk is waited for, and how much of it was said to be done."""

    seen: Final[list[tuple[tuple[str, str, int | None], int]]] = []
    told: Told

    def sync(self, tree: Tree) -> None:
        self.seen.append((self.told.steps[-1], self.told.done[-1]))
        super().sync(tree)


@pytest.mark.slow
def test_a_commit_says_that_it_waits_for_the_disk(tmp_path: Path, told: _Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blobs are flushed then, which takes minutes on a slow disk."""
    monkeypatch.setattr(Flushing, "told", told, raising=False)
    deploy_bundle(make_bundle(tmp_path, IMAGES), tmp_path / "site", TAKING, told, Flushing)
    (step, things, total), done = Flushing.seen[0]
    assert (step, things, done) == ("commit", "blobs, links and tags on the disk", 0)
    assert totals(told)["commit: blobs, links and tags on the disk"] == total


@pytest.mark.slow
def test_a_bundle_says_that_it_waits_for_the_disk(tmp_path: Path, told: _Told) -> None:
    joined(places_in(tmp_path), told)
    assert totals(told)["write: bundles on the disk"] == 1


def test_a_selection_reads_image_after_image(tmp_path: Path, told: _Told) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    select_images(Storage(root), tuple(map(listed, IMAGES)), told)
    assert totals(told) == {"select: images read": 3}


@pytest.mark.slow
def test_what_a_site_remembers_is_looked_at_image_by_image(tmp_path: Path, told: _Told) -> None:
    bundle, site = make_bundle(tmp_path, IMAGES, name="acme-1"), tmp_path / "site"
    deploy_bundle(bundle, site, TAKING, SILENT)
    look_at_site(site, lock_timeout=0, listener=told)
    assert totals(told) == {
        "read: records of releases": 2,
        "look: images of releases": 3,
        "look: releases compared with the tags": 1,
        "read: tags": 3,
    }
    back = Told()
    rollback(site, "acme-1", RollbackOptions(dry_run=False, lock_timeout=0), back)
    found = totals(back)
    assert (found["read: records of releases"], found["look: images of releases"]) == (2, 3)
    assert "commit: links written" in found


@pytest.mark.slow
@pytest.mark.parametrize("hashed", [False, True])
def test_a_registry_is_looked_at_image_by_image_also_where_a_blob_cannot_be_read(
    told: _Told, two: Between, *, hashed: bool
) -> None:
    layer = f"{Digest.of(IMAGES['app/web:2'].blobs[-1])}"
    two.source.fails = lambda request: 404 if request.startswith("GET") and layer in request else None
    check = RegistryCheck(location=two.place(two.source), prefix="", exact=False, hashed=hashed)
    entries = parse_images("".join(f"{line}\n" for line in (*IMAGES, "absent:1")).encode(), "images.list").entries
    report = verify_registry(replace(two.job(), listener=told), check, entries)
    assert ["cannot be read" in line for line in report.problems] == [True] * hashed
    found = totals(told)
    assert found["verify: images looked at"] == 4
    assert found.get("hash: ", 0) == hashed * sum(map(len, {data for image in IMAGES.values() for data in image.blobs}))


@pytest.mark.slow
def test_each_question_before_the_look_is_counted(told: _Told, two: Between) -> None:
    source = replace(two.place(two.source), mirrors=(Mirror(host=two.dest.host),))
    job = replace(two.job(archive=two.directory, source=source), listener=told, signed=(SignedRule("nothing", ()),))
    two.run(job, *IMAGES, options=SyncOptions(dry_run=True, referrers=True))
    assert totals(told) == {
        "look: images at mirrors": 3,
        "look: images asked for referrers": 3,
        "look: images with their signatures": 3,
        "look: images at both ends": 3,
    }


@pytest.mark.slow
def test_tags_are_looked_at_once_more_when_they_were_copied(told: _Told, two: Between) -> None:
    two.sync(replace(two.job(), listener=told), *IMAGES)
    assert told.steps[-1] == ("look", "tags that were copied", 3)
    assert told.done[-1] == 3


@pytest.mark.slow
def test_a_bundle_straight_from_the_source_counts_what_it_reads_first(
    tmp_path: Path, told: _Told, two: Between
) -> None:
    make_storage(two.root, {"z:1": IMAGES["z:1"]})
    two.scripted.launcher.answers.append(curl())
    job = replace(two.job(archive=two.directory), listener=told)
    options = DirectOptions(hashed=True, name="", referrers=False, since=())
    images = parse_images("\n".join(IMAGES).encode(), "images.list")
    with direct_bundle(job, images, tmp_path / "out.tar", options):
        pass
    assert ("select", "images read", 1) in told.steps
    assert ("select", "configs read", 2) in told.steps
    assert ("write", "bundles on the disk", 1) in told.steps


@pytest.mark.slow
def test_a_release_verifies_all_bytes_and_says_that_it_waits_for_the_checksum(
    tmp_path: Path, told: _Told, two: Between
) -> None:
    two.scripted.launcher.answers.append(curl())
    job = replace(two.job(archive=two.directory), listener=told)
    options = PackageOptions(hashed=True, name="", strategy=Strategy.DIRECT)
    images = parse_images("\n".join(IMAGES).encode(), "images.list")
    reports = list[SyncReport]()
    release_images(job, images, tmp_path / "out.tar", options, tools={}, on_sync=reports.append)
    size = sum(map(len, all_data()))
    assert list(zip(told.steps, told.done, strict=True))[-2:] == [
        (("verify", "", size), size),
        (("verify", "checksums", 1), 1),
    ]


@pytest.mark.slow
def test_deploy_puts_links_and_tags_into_place(tmp_path: Path, told: _Told) -> None:
    bundle = make_bundle(tmp_path, IMAGES)
    deploy_bundle(bundle, tmp_path / "site", TAKING, told)
    links = list((tmp_path / "site").rglob("link"))
    found = totals(told)
    assert found["commit: links written"] == len([path for path in links if "/tags/" not in f"{path}"])
    blobs = len(list((tmp_path / "site").rglob("data")))
    assert found["commit: blobs, links and tags in place"] == found["commit: links written"] + blobs + len(IMAGES)


def verified_from_a_pipe(places: Places, told: _Told) -> None:
    with places.bundle.open("rb") as pipe:
        verify_incoming(pipe, None, told)


def verified_from_volumes(places: Places, told: _Told) -> None:
    with volume_stream(places.volumes, never) as file:
        verify_incoming(file, None, told, (), Arrival(places.volumes))


def verified_delta_from_a_pipe(places: Places, told: _Told) -> None:
    with places.delta.open("rb") as pipe:
        verify_incoming(pipe, None, told, places.bases)


def served(places: Places, told: _Told) -> None:
    with opened_contents(places.bundle, hashed=True, listener=told):
        pass


def served_from_volumes(places: Places, told: _Told) -> None:
    with opened_contents(places.volumes, hashed=True, listener=told):
        pass


def deployed_from_a_pipe(places: Places, told: _Told) -> None:
    with places.bundle.open("rb") as pipe:
        deploy_incoming(pipe, Path("-"), places.new, TAKING, told)


def deployed_from_volumes(places: Places, told: _Told) -> None:
    with volume_stream(places.volumes, never) as file:
        deploy_incoming(file, places.volumes, places.new, TAKING, told)


def joined(places: Places, told: _Told) -> None:
    join_bundles([places.archive], places.delta, places.new, lock_timeout=0, listener=told)


def exported(places: Places, told: _Told) -> None:
    options = ExportOptions(form=Form.DIR, dry_run=False, scratch=places.archive.parent)
    with opened_contents(places.bundle, hashed=False, listener=told) as image_set:
        assert isinstance(image_set, ImageSet)
        export_images(image_set, places.new, options, told)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "run"),
    [
        ("verify", lambda places, told: verify_bundle(places.bundle, None, told)),
        ("verify", lambda places, told: verify_bundle(places.volumes, None, told)),
        ("verify", lambda places, told: verify_bundle(places.delta, None, told, bases=places.bases)),
        ("verify", lambda places, told: verify_storage(places.archive, None, told)),
        ("verify", verified_from_a_pipe),
        ("verify", verified_from_volumes),
        ("verify", verified_delta_from_a_pipe),
        ("verify", served),
        ("verify", served_from_volumes),
        ("deploy", lambda places, told: deploy_bundle(places.bundle, places.new, TAKING, told)),
        ("deploy", lambda places, told: deploy_bundle(places.volumes, places.new, TAKING, told)),
        ("deploy", deployed_from_a_pipe),
        ("deploy", deployed_from_volumes),
        ("join", joined),
        ("export", exported),
    ],
)
def test_all_bytes_that_are_expected_of_a_bundle_come_and_no_others(
    tmp_path: Path, told: _Told, step: str, run: Callable[[Places, _Told], object]
) -> None:
    run(places_in(tmp_path), told)
    assert totals(told)[f"{step}: "] == sum(len(data) for data in all_data())


@pytest.mark.parametrize("place", ["bundle", "volumes"])
def test_a_bundle_is_read_header_by_header_before_its_bytes(tmp_path: Path, told: _Told, place: str) -> None:
    places = places_in(tmp_path)
    verify_bundle(getattr(places, place), None, told)
    assert totals(told)["read: files in the tar"] == len(contents_of(places.archive, *IMAGES).members)


@pytest.mark.slow
def test_export_and_import_read_all_images_first(tmp_path: Path, told: _Told, two: Between) -> None:
    root = make_storage(tmp_path / "root", IMAGES)
    export_image_set(replace(two.job(), listener=told), root, tmp_path / "tree", form=Form.DIR, dry_run=False)
    assert totals(told)["read: images"] == 3
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


def test_what_went_quicker_before_says_nothing_of_what_is_left() -> None:
    """What was copied from a disk in a moment would make an hour of network seem to be a minute."""
    pace, start = Pace(), time.monotonic()
    assert pace.rate(start + 10, 10_000) == pytest.approx(1000, rel=0.01)
    rates = [pace.rate(start + 10 + seconds, 10_000 + 5 * seconds) for seconds in range(15, 151, 15)]
    assert rates[-1] == pytest.approx(5)
    assert pace.rate(start + 161, 0) == 0, "what has to be done again is no work undone"


def test_the_time_that_a_user_takes_to_answer_is_not_the_works() -> None:
    pace, start = Pace(), time.monotonic()
    pace.rate(start + 40, 0)  # while he answers
    pace.pause(start + 10, 50)
    assert pace.rate(start + 70, 2_000) == pytest.approx(100, rel=0.01)


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
