"""Pushing a delta: what it requires is in the registry, is taken over there, or is in the base; or nothing is sent."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.delta import since
from regwrap.commands.push import PushOptions, push_images
from regwrap.core.errors import ImagesFailedError, IntegrityError
from regwrap.core.location import Location, Registry
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from regwrap.lists.naming import Naming
from regwrap.tools.retry import RetryPolicy
from regwrap.transfer.job import Job
from regwrap.transfer.run import SyncReport
from tests.builders import make_image, make_layer, make_multi_image, make_storage
from tests.bundles import contents_of, older, write_bundle
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

    def push(self, *bases: Path, hashed: bool = False, naming: Naming | None = None) -> SyncReport:
        options = PushOptions(
            naming=naming or Naming(prefix="site"),
            existing=Existing.FAIL,
            create_projects=False,
            hashed=hashed,
            dry_run=False,
            bases=bases,
        )
        registry = Registry(host=self.registry.host, tls_verify=False, plain_http=True)
        report = push_images(self.job, self.delta, Location(name="site", registry=registry), options).report
        assert report is not None
        return report


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
def test_what_the_registry_lacks_comes_from_the_base(site: Site) -> None:
    assert site.push(site.first).failed == ()
    assert all(site.registry.has(f"site/{name}", image) for name, image in SECOND.items())


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
