"""Twice the images are twice the work: a catalog has thousands of them."""

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from regwrap.bundle.delta import since
from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.examine_incoming import verify_incoming
from regwrap.bundle.inspection import inspect_bundle
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.pipe import PipeTarget
from regwrap.bundle.select import select_images
from regwrap.bundle.stream import Target, streamed_bundle
from regwrap.bundle.volume_stream import never, volume_stream
from regwrap.bundle.volume_target import VolumeTarget
from regwrap.bundle.volumes import damaged_volumes
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.commands.join import join_bundles
from regwrap.core.listener import SILENT
from regwrap.core.moves import Existing
from regwrap.storage.store import Storage
from tests.builders import flip, make_image, make_layer
from tests.bundles import contents_of, listed, make_bundle, older, write_bundle
from tests.calls import calls_of

SIZES = (20, 40, 80)
OPTIONS = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)


@dataclass(frozen=True)
class Place:
    """`images` that share a layer, in a storage, as a bundle and in volumes; `delta` lacks the first half."""

    root: Path
    images: tuple[str, ...]

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def bundle(self) -> Path:
        return self.root / "v.tar"

    @property
    def volumes(self) -> Path:
        return self.root / "cut/v.tar"

    @property
    def delta(self) -> Path:
        return self.root / "delta.tar"

    @property
    def base(self) -> Path:
        return self.root / "base.tar"

    def new(self) -> Path:
        shutil.rmtree(self.root / "new", ignore_errors=True)
        return self.root / "new"

    def stream(self, target: Target) -> None:
        selection = select_images(Storage(self.archive), tuple(map(listed, self.images)))
        with streamed_bundle(selection, target, SILENT, hashed=True):
            pass


def made(root: Path, count: int) -> Place:
    shared = make_layer("shared")
    images = {f"team/app-{n}:1": make_image(f"{n}", layers=[shared, make_layer(f"{n}")]) for n in range(count)}
    place = Place(root, tuple(images))
    make_bundle(root, images).rename(place.bundle)
    half = contents_of(place.archive, *place.images[: count // 2])
    write_bundle(place.base, half, place.archive)
    write_bundle(place.delta, since(contents_of(place.archive, *place.images), [older(half)]), place.archive)
    place.volumes.parent.mkdir()
    place.stream(VolumeTarget(output=place.volumes, size=place.bundle.stat().st_size // 5))
    return place


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, ...]:
    root = tmp_path_factory.mktemp("growth")
    return tuple(made(root / f"{count}", count) for count in SIZES)


def verify_volumes(place: Place) -> None:
    with volume_stream(place.volumes, never) as file:
        assert verify_incoming(file, None, SILENT).problems == ()


def blame_volumes(place: Place) -> None:
    """Where nobody says their sums, all members are compared with what they have to be."""
    for beside in (".json", ".sha256"):
        place.volumes.with_name(f"v.tar{beside}").unlink(missing_ok=True)
    damaged = place.volumes.with_name("v.tar.003")
    flip(damaged)
    assert any(damaged.name in problem for problem in damaged_volumes(place.volumes))
    flip(damaged)


WORKS: dict[str, Callable[[Place], object]] = {
    "select": lambda p: select_images(Storage(p.archive), tuple(map(listed, p.images))),
    "verify a file": lambda p: verify_bundle(p.bundle, tuple(map(listed, p.images)), SILENT),
    "verify a pipe": lambda p: verify_incoming(io.BytesIO(p.bundle.read_bytes()), None, SILENT),
    "verify volumes": verify_volumes,
    "verify a storage": lambda p: verify_storage(p.archive, tuple(map(listed, p.images)), SILENT),
    "blame volumes": blame_volumes,
    "inspect": lambda p: inspect_bundle(p.bundle),
    "deploy a file": lambda p: deploy_bundle(p.bundle, p.new(), OPTIONS, SILENT),
    "deploy a pipe": lambda p: deploy_incoming(io.BytesIO(p.bundle.read_bytes()), Path("-"), p.new(), OPTIONS, SILENT),
    "deploy again": lambda p: deploy_bundle(p.bundle, p.archive, OPTIONS, SILENT),
    "join": lambda p: join_bundles([p.base], p.delta, p.new(), lock_timeout=0, listener=SILENT),
    "stream": lambda p: p.stream(PipeTarget(io.BytesIO())),
    "write volumes": lambda p: p.stream(VolumeTarget(output=p.volumes, size=p.bundle.stat().st_size // 5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_twice_the_images_are_twice_the_work(places: tuple[Place, ...], name: str) -> None:
    """By what more of them add: a constant part hides nothing. Threads wait for each other more or less often, so the
    least of some runs counts."""
    few, more, many = (min(calls_of(partial(WORKS[name], place)) for _ in range(3)) for place in places)
    assert (many - more) / (more - few) < 3  # two; by their square it would be four
