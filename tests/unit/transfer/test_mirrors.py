"""Mirrors: whose bytes come first, what is asked of whom, and that the list keeps naming the registry."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.commands.sync import SyncOptions
from regwrap.core.location import Location, Mirror
from regwrap.transfer.job import Job
from tests.builders import make_image, make_storage, put
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Scripted
from tests.unit.cli.programs import curl
from tests.unit.transfer.between import Between, between, plain

APP, OTHER = make_image("app"), make_image("other")


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root") as found:
        found.source.hold("team/app:1", APP)
        scripted.launcher.answers.append(curl())
        yield found


@pytest.fixture
def mirror() -> Iterator[FakeRegistry]:
    with fake_registry() as found:
        yield found


def through(two: Between, *mirrors: Mirror) -> Job:
    return two.job(archive=two.directory, source=replace(two.place(two.source), mirrors=mirrors))


def blobs_from(registry: FakeRegistry) -> int:
    return len(registry.asked("^GET .*/blobs/"))


@pytest.mark.slow
def test_bytes_come_from_the_first_mirror_that_has_the_image(two: Between, mirror: FakeRegistry) -> None:
    mirror.hold("cache/team/app:1", APP)
    dest = Mirror(host=two.dest.host)
    report = two.sync(through(two, dest, Mirror(host=mirror.host, prefix="cache")), "team/app:1")
    assert two.storage.resolve("team/app", "1") == APP.top
    assert (blobs_from(mirror), blobs_from(two.source), blobs_from(two.dest)) == (2, 0, 0)
    assert len(report.copied) == 1
    assert two.dest.asked("/v2/team/app/manifests/1") != []


def test_where_no_mirror_has_it_the_registry_itself_is_asked(two: Between, mirror: FakeRegistry) -> None:
    mirror.hold("team/app:2", OTHER)
    two.sync(through(two, Mirror(host=mirror.host)), "team/app:1")
    assert two.storage.resolve("team/app", "1") == APP.top
    assert blobs_from(mirror) == 0
    assert two.told.lines == []


@pytest.mark.slow
def test_a_mirror_that_cannot_be_asked_is_passed_by_and_told_once(two: Between, mirror: FakeRegistry) -> None:
    two.source.hold("team/other:1", OTHER)
    mirror.fails = lambda _request: 500
    two.sync(through(two, Mirror(host=mirror.host)), "team/app:1", "team/other:1")
    assert two.storage.resolve("team/app", "1") == APP.top
    assert two.storage.resolve("team/other", "1") == OTHER.top
    (note,) = two.told.lines
    assert note.startswith(f"note: skipping the mirror {mirror.host} for ")
    assert "500" in note


@pytest.mark.slow
def test_a_digest_is_asked_for_and_not_the_tag(two: Between, mirror: FakeRegistry) -> None:
    """Another image by the same tag would come otherwise."""
    mirror.hold("team/app:1", OTHER)
    line = f"team/app@{APP.top} => team/app:1"
    two.sync(through(two, Mirror(host=mirror.host)), line)
    assert two.storage.resolve("team/app", "1") == APP.top
    assert blobs_from(mirror) == 0
    mirror.hold("team/app:x", APP)
    two.root.rename(two.root.with_name("old"))
    two.sync(through(two, Mirror(host=mirror.host)), line)
    assert two.storage.resolve("team/app", "1") == APP.top
    assert blobs_from(mirror) == 2


def test_a_registry_that_a_line_names_has_its_own_mirrors(two: Between, mirror: FakeRegistry) -> None:
    mirror.hold("team/app:1", APP)
    mirrors = (Mirror(host=mirror.host),)
    job = two.job(archive=two.directory, source=replace(two.place(two.dest), mirrors=()))

    def location_of(name: str) -> Location:
        own = mirrors if name == two.source.host else ()
        return Location(name=name, registry=plain(name), mirrors=own)

    two.sync(replace(job, location_of=location_of), f"{two.source.host}/team/app:1 => team/app:1")
    assert two.storage.resolve("team/app", "1") == APP.top
    assert (blobs_from(mirror), blobs_from(two.source)) == (2, 0)


def test_what_is_an_archive_or_a_directory_has_no_mirror(two: Between, tmp_path: Path, mirror: FakeRegistry) -> None:
    source = Location(name="old", storage=make_storage(tmp_path / "old", {"team/app:1": APP}))
    two.sync(two.job(archive=two.directory, source=source), "team/app:1")
    assert two.storage.resolve("team/app", "1") == APP.top
    job = through(two, Mirror(host=mirror.host))
    missing = f"docker-archive:{put(tmp_path / 'x.tar', b'')}.none => third/app:1"
    plan = two.run(job, missing, "team/app:1 => other/app:1", options=SyncOptions(dry_run=True)).plan
    (unseen,) = plan.unseen
    assert "does not exist" in unseen.error
    assert [f"{copy.entry.dest}" for copy in plan.copies] == ["other/app:1"]


@pytest.mark.parametrize(("prefix", "name"), [("", "a/b"), ("hub", "hub/a/b")])
def test_a_mirror_has_the_repositories_below_its_prefix(prefix: str, name: str) -> None:
    assert Mirror(host="m.io", prefix=prefix).repository("a/b") == name
