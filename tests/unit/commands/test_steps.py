"""Whatever may take long says what it does and how much is left, to its end."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

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
from regwrap.commands.export import ExportOptions, export_image_set, export_images
from regwrap.commands.gc import GcOptions, collect_garbage
from regwrap.commands.import_tree import import_tree
from regwrap.commands.join import join_bundles
from regwrap.commands.lock import write_lock
from regwrap.commands.sync import SyncOptions
from regwrap.core.listener import SILENT
from regwrap.core.moves import Existing
from regwrap.forms.tree import Form
from regwrap.lists.imagelist import HOST_IS_DROPPED, parse_images
from regwrap.lists.wanted import Wanted
from regwrap.report.progress import Pace, Progress
from regwrap.report.terminal import Folds, Reader
from regwrap.storage.gc import Keep
from regwrap.storage.store import Storage
from regwrap.storage.sweep import RealDisk
from tests.builders import make_image, make_multi_image, make_storage
from tests.bundles import contents_of, listed, make_bundle, older, write_bundle
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
