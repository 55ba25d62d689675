"""Pushing a delta: what it requires is in the registry, is taken over there, or is in the base; or nothing is sent."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.delta import since
from regwrap.commands.push import PushOptions, push_images
from regwrap.commands.sync import SyncResult
from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.location import Location, Registry
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.lists.naming import Naming
from regwrap.storage.store import Storage
from regwrap.tools.retry import RetryPolicy
from regwrap.transfer.job import Job
from regwrap.transfer.run import SyncReport
from tests.builders import make_image, make_layer, make_multi_image, make_storage, truncate
from tests.bundles import contents_of, older, write_bundle
from tests.calls import calls_of
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Scripted
from tests.unit.commands.pushing import push_job
from tests.unit.commands.test_push import Quiet

BASE = make_layer("base")
KEPT, NEW = (make_image(seed, layers=[BASE, make_layer(seed)]) for seed in ("kept", "new"))
FIRST = {"kept:1": KEPT, "multi:1": make_multi_image("multi")}
SECOND = {"multi:1": FIRST["multi:1"], "kept:2": NEW}


class Site:
    """A vendor with two releases and the delta, and a registry."""

    def __init__(self, place: Path, registry: FakeRegistry, job: Job) -> None:
        self.registry, self.job = registry, job
        root = make_storage(place / "archive", {**FIRST, **SECOND})
        first, second = (replace(contents_of(root, *i), name=n) for i, n in ((FIRST, "v1"), (SECOND, "v2")))
        self.first = write_bundle(place / "v1.tar", first, root)
        self.delta = write_bundle(place / "delta.tar", since(second, [older(first)]), root)
        self.lacking = write_bundle(place / "lacking.tar", contents_of(root, "multi:1"), root)  # BASE is required too

    def push(self, *bases: Path, hashed: bool = False, naming: Naming | None = None) -> SyncReport:
        report = self.result(*bases, hashed=hashed, naming=naming).report
        assert report is not None
        return report

    def result(
        self, *bases: Path, hashed: bool = False, naming: Naming | None = None, dry_run: bool = False
    ) -> SyncResult:
        options = PushOptions(
            naming=naming or Naming(prefix="site"),
            existing=Existing.FAIL,
            create_projects=False,
            hashed=hashed,
            dry_run=dry_run,
            bases=bases,
        )
        registry = Registry(host=self.registry.host, tls_verify=False, plain_http=True)
        return push_images(self.job, self.delta, Location(name="site", registry=registry), options)


@pytest.fixture
def site(tmp_path: Path, scripted: Scripted) -> Iterator[Site]:
    with fake_registry() as registry:
        job = push_job(scripted, Quiet(), RetryPolicy(attempts=1, wait=0, max_wait=0))
        yield Site(tmp_path, registry, job)


@pytest.mark.slow
def test_a_registry_with_the_base_gets_only_what_is_new(site: Site) -> None:
    for name, image in FIRST.items():
        site.registry.hold(f"site/{name}", image)
    report = site.push(hashed=True)
    assert ([f"{c.copy.entry.dest}" for c in report.copied], len(report.skipped)) == (["site/kept:2"], 1)
    assert report.sent == sum(len(blob) for blob in NEW.blobs if blob != BASE)
    assert all(site.registry.has(f"site/{name}", image) for name, image in SECOND.items())
    assert site.push().copied == ()


@pytest.mark.slow
def test_a_manifest_that_the_registry_has_serves_for_a_tag_that_it_lacks(site: Site) -> None:
    for name, image in FIRST.items():
        site.registry.hold(f"site/{name}", image)
    del site.registry.manifests["site/multi", "1"]
    assert site.push().failed == ()
    assert site.registry.has("site/multi:1", FIRST["multi:1"])


@pytest.mark.slow
def test_what_is_nowhere_is_named_and_nothing_is_sent(site: Site) -> None:
    site.registry.hold("site/multi:1", FIRST["multi:1"])
    with pytest.raises(ImagesFailedError, match=r"lacks 1 of them .* of release v1") as told:
        site.push()
    assert f"blob {Digest.of(BASE)}" in told.value.problems[0]
    assert "kept:2" in told.value.problems[0]
    site.registry.manifests.clear()
    with pytest.raises(ImagesFailedError) as told:
        site.push()
    assert any(f"{FIRST['multi:1'].top}" in line for line in told.value.problems)
    assert site.registry.asked("^(PUT|POST)") == []


@pytest.mark.slow
def test_why_the_registry_could_not_be_asked_is_told(site: Site) -> None:
    """What nobody could look for is not only missing."""
    for name, image in FIRST.items():
        site.registry.hold(f"site/{name}", image)
    site.registry.fails = lambda request: 403 if re.match("HEAD .*/blobs/", request) else None
    with pytest.raises(ImagesFailedError, match=r"lacks \d+ of them") as told:
        site.push()
    assert re.search(rf"{site.registry.host} could not be asked for all of them: .*403", told.value.problems[-1])
    assert site.registry.asked("^(PUT|POST)") == []


@pytest.mark.slow
def test_what_the_registry_lacks_comes_from_the_base(site: Site) -> None:
    assert site.push(site.first).failed == ()
    assert all(site.registry.has(f"site/{name}", image) for name, image in SECOND.items())


@pytest.mark.slow
@pytest.mark.parametrize("hashed", [False, True])
def test_a_base_has_some_of_it_and_the_registry_the_rest(site: Site, *, hashed: bool) -> None:
    site.registry.hold("site/kept:1", KEPT)
    planned = site.result(site.lacking, dry_run=True, hashed=hashed).plan
    report = site.push(site.lacking, hashed=hashed)
    assert report.sent == planned.bytes_missing
    assert (report.failed, len(report.copied)) == ((), 2)
    assert all(site.registry.has(f"site/{name}", image) for name, image in SECOND.items())
    assert not site.registry.asked(f"^PUT .*{Digest.of(BASE).hex}")


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_neither_the_base_nor_the_registry_has_is_named(site: Site, *, dry_run: bool) -> None:
    site.registry.hold("site/multi:1", FIRST["multi:1"])
    with pytest.raises(ImagesFailedError, match=rf"and {site.registry.host}, \S+/lacking\.tar lacks 1 of them") as told:
        site.result(site.lacking, dry_run=dry_run)
    assert f"blob {Digest.of(BASE)}" in told.value.problems[0]
    assert site.registry.asked("^(PUT|POST)") == []


@pytest.mark.slow
def test_what_a_base_has_with_another_size_is_refused_even_if_the_registry_has_it(site: Site, tmp_path: Path) -> None:
    for name, image in FIRST.items():
        site.registry.hold(f"site/{name}", image)
    base = make_storage(tmp_path / "base", FIRST)
    truncate(Storage(base).blob_path(Digest.of(BASE)))
    with pytest.raises(IntegrityError, match="does not fit what is there; nothing was changed"):
        site.push(base)
    assert site.registry.asked("^(PUT|POST)") == []


def test_what_a_base_has_is_hashed_where_that_is_wanted(site: Site) -> None:
    site.registry.hold("site/kept:1", KEPT)
    layer = FIRST["multi:1"].blobs[-1]
    site.lacking.write_bytes(site.lacking.read_bytes().replace(layer, bytes(len(layer))))
    with pytest.raises(IntegrityError, match="is damaged") as told:
        site.push(site.lacking, hashed=True)
    assert f"{Digest.of(layer)}" in told.value.problems[0]
    assert site.registry.asked("^(PUT|POST)") == []


@pytest.mark.slow
def test_a_blob_is_taken_over_from_a_repository_that_only_the_base_names(site: Site, tmp_path: Path) -> None:
    moved = make_storage(tmp_path / "moved", {"old/name:1": KEPT, "new/name:2": NEW, "multi:1": FIRST["multi:1"]})
    first, second = contents_of(moved, "old/name:1", "multi:1"), contents_of(moved, "new/name:2", "multi:1")
    base = write_bundle(tmp_path / "moved-1.tar", first, moved)
    site.delta = write_bundle(tmp_path / "moved-2.tar", since(second, [older(first)]), moved)
    site.registry.hold("site/old/name:1", KEPT)
    site.registry.hold("site/multi:1", FIRST["multi:1"])
    with pytest.raises(ImagesFailedError):
        site.push()
    report = site.push(base)
    assert (report.failed, report.sent) == ((), sum(len(blob) for blob in NEW.blobs if blob != BASE))
    assert site.registry.asked(f"^POST .*mount={Digest.of(BASE)}.*from=site".replace(":", "(:|%3A)"))
    assert site.registry.has("site/new/name:2", NEW)


@pytest.mark.slow
def test_a_registry_that_does_not_give_a_blob_to_another_repository_fails_the_image(site: Site, tmp_path: Path) -> None:
    archive = make_storage(tmp_path / "two", {"a:1": KEPT, "b:1": KEPT, "b:2": NEW})
    first, second = contents_of(archive, "a:1"), contents_of(archive, "a:1", "b:2")
    site.delta = write_bundle(tmp_path / "two.tar", since(second, [older(first)]), archive)
    site.registry.hold("site/a:1", KEPT)
    site.registry.fails = lambda request: 405 if "mount=" in request else None
    (failed,) = site.push().failed
    assert "does not give it to site/b" in failed.error
    assert "--base" in failed.hint


def test_a_damaged_delta_is_refused_before_anything_is_asked_for(site: Site) -> None:
    layer = NEW.blobs[-1]
    site.delta.write_bytes(site.delta.read_bytes().replace(layer, bytes(len(layer))))
    with pytest.raises(IntegrityError):
        site.push(hashed=True)
    assert site.registry.asked("^(PUT|POST)") == []


def test_a_blob_that_the_registry_lacks_is_looked_for_once(site: Site, tmp_path: Path) -> None:
    """However many images need it: each repository of the release could have it."""
    images = {f"app-{n}:1": make_image(f"{n}", layers=[BASE, make_layer(f"{n}")]) for n in range(6)}
    archive = make_storage(tmp_path / "many", {**images, "kept:1": KEPT})
    first, second = contents_of(archive, "kept:1"), contents_of(archive, *images)
    site.delta = write_bundle(tmp_path / "many.tar", since(second, [older(first)]), archive)
    site.result(write_bundle(tmp_path / "many-base.tar", first, archive), dry_run=True)
    for name in images:
        asked = site.registry.asked(f"^HEAD /v2/site/{name.partition(':')[0]}/blobs/{Digest.of(BASE)}")
        assert len(asked) <= 2  # for its own image, and for all of them


def lookups(site: Site, place: Path, count: int) -> int:
    """How often a dry run compares two of anything: of a delta whose blobs the registry has under older names."""
    images = {f"old-{n}:1": make_image(f"{n}", layers=[make_layer(f"{n}")]) for n in range(count)}
    names = {f"new-{n}:1": image for n, image in enumerate(images.values())}
    archive = make_storage(place / "archive", {**images, **names})
    first, second = contents_of(archive, *images), contents_of(archive, *images, *names)
    site.delta = write_bundle(place / "delta.tar", since(second, [older(first)]), archive)
    for name, image in images.items():
        site.registry.hold(f"site/{name}", image)
    return calls_of(lambda: site.result(dry_run=True), "__eq__")


@pytest.mark.slow
def test_four_times_the_images_are_four_times_the_comparisons(site: Site, tmp_path: Path) -> None:
    few, many = (lookups(site, tmp_path / f"{count}", count) for count in (20, 80))
    assert many < few * 4 * 1.15
