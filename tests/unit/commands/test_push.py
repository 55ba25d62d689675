"""Pushing a storage into a registry that is in the test's own process: its steps, and that Ctrl-C ends it at once."""

import itertools
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.commands.push import PushOptions, push_images
from regwrap.commands.sync import SyncResult
from regwrap.core.errors import Interrupted, UsageError
from regwrap.core.listener import Outlook, Silent
from regwrap.core.location import Location, Registry
from regwrap.core.model import Digest
from regwrap.core.moves import Existing, TagMove
from regwrap.lists.naming import Naming
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.tools.retry import RetryPolicy
from regwrap.transfer.job import Job
from regwrap.transfer.plan import Copy
from regwrap.transfer.run import SyncReport
from tests.builders import make_image, make_multi_image, make_storage
from tests.bundles import contents_of, listed, packed, parts_of
from tests.calls import calls_of
from tests.fakeregistry import FakeRegistry, fake_registry
from tests.fakes import Scripted
from tests.harbor import USER, fake_harbor
from tests.lost import lose
from tests.tls import write_authfile
from tests.unit.commands.pushing import push_job
from tests.unit.transfer.test_sync import Heard

IMAGES = {"team/app:v1": make_image("app"), "team/tool:v1": make_image("tool"), "other/app:v2": make_image("app")}


@dataclass
class Quiet(Silent, Heard):
    """Nobody listens, but the test."""

    lines: list[str] = field(default_factory=list)

    def log(self, text: str, /) -> None:
        self.lines.append(text)

    def watch(self, look: Callable[[], Outlook], /) -> None:
        self.looks.append(look)


@dataclass
class Site:
    registry: FakeRegistry
    job: Job
    told: Quiet
    source: Path
    authfile: Path | None = None

    def push(
        self, *, existing: Existing = Existing.FAIL, dry_run: bool = False, immutable: tuple[str, ...] = ()
    ) -> SyncReport | tuple[Copy, ...]:
        result = self.result(self.source, existing=existing, dry_run=dry_run, immutable=immutable)
        return result.plan.copies if result.report is None else result.report

    def result(
        self,
        source: Path,
        *,
        existing: Existing = Existing.FAIL,
        dry_run: bool,
        immutable: tuple[str, ...] = (),
        partial_indexes: bool | None = None,
    ) -> SyncResult:
        naming = Naming(prefix="site")
        options = PushOptions(naming=naming, existing=existing, create_projects=False, hashed=False, dry_run=dry_run)
        registry = Registry(
            host=self.registry.host,
            authfile=self.authfile,
            tls_verify=False,
            plain_http=True,
            partial_indexes=partial_indexes,
        )
        return push_images(self.job, source, Location(name="site", registry=registry, immutable=immutable), options)


@pytest.fixture
def site(tmp_path: Path, scripted: Scripted) -> Iterator[Site]:
    with fake_registry() as registry:
        source = make_storage(tmp_path / "source", IMAGES)
        told = Quiet()
        job = push_job(scripted, told, RetryPolicy(attempts=20, wait=600, max_wait=600))
        yield Site(registry, job, told, source)


@pytest.mark.slow
def test_what_another_repository_there_gives_is_neither_done_nor_left_to_do(site: Site, tmp_path: Path) -> None:
    first = make_storage(tmp_path / "first", {"team/app:v1": IMAGES["team/app:v1"]})
    site.result(first, dry_run=False)
    report = site.push()
    assert isinstance(report, SyncReport)
    assert site.registry.asked("^POST .*site/other/app/.*mount=")
    assert report.sent == sum(map(len, IMAGES["team/tool:v1"].blobs))
    assert site.told.looks[-1]() == Outlook(report.sent, 0)


@pytest.mark.slow
def test_a_push_sends_each_blob_once_and_a_second_one_nothing(site: Site) -> None:
    first = site.push()
    assert isinstance(first, SyncReport)
    assert (len(first.copied), first.failed) == (3, ())
    blobs = {data for image in IMAGES.values() for data in image.blobs}
    assert first.sent == sum(map(len, blobs))
    assert len(site.registry.asked("^PUT .*digest=")) == len(blobs)
    again = site.push()
    assert isinstance(again, SyncReport)
    assert (len(again.skipped), again.sent) == (3, 0)


@pytest.mark.parametrize("part", ["layer", "manifest"])
def test_what_the_disk_does_not_give_fails_the_image_that_needs_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    tool = IMAGES["team/tool:v1"]
    path = Storage(site.source).blob_path(Digest.of(tool.blobs[1]) if part == "layer" else tool.top)
    lose(monkeypatch, path)
    report = site.push()
    assert isinstance(report, SyncReport)
    (failed,) = report.failed
    assert f"{failed.entry.dest}" == "site/team/tool:v1"
    assert f"cannot be read from {path}: Input/output error" in failed.error
    assert len(report.copied) == 2


@pytest.mark.parametrize("damage", ["other bytes", "absent", "no link"])
def test_no_tag_of_a_storage_is_left_out_in_silence(site: Site, damage: str) -> None:
    top, tag = Storage(site.source).blob_path(IMAGES["team/tool:v1"].top), layout.tag_link("team/tool", "v1")
    if damage == "other bytes":
        top.write_bytes(b"{}")
    else:
        (top if damage == "absent" else site.source / tag).unlink()
    report = site.push()
    assert isinstance(report, SyncReport)
    said = [f"{item.entry.dest}: {item.error}" for item in report.failed] + site.told.lines
    assert [line for line in said if "team/tool:v1" in line]
    assert (len(report.copied), len(report.failed)) == (2, damage != "no link")


@pytest.mark.slow
def test_a_dry_run_asks_for_each_blob_once(site: Site) -> None:
    planned = site.push(dry_run=True)
    assert not isinstance(planned, SyncReport)
    assert len(planned) == 3
    asked = site.registry.asked("^HEAD .*/blobs/")
    assert len(asked) == len(set(asked)) == sum(len(set(image.blobs)) for image in IMAGES.values())
    assert site.registry.asked("^(PUT|POST)") == []


@pytest.mark.slow
def test_a_push_asks_a_repository_that_is_not_there_for_no_blob(site: Site) -> None:
    """With a question for each, an empty registry of 200 images is asked some thousand times for nothing."""
    site.push()
    before = list(itertools.takewhile(lambda request: not request.startswith("POST"), site.registry.requests))
    assert not [request for request in before if "/blobs/" in request]
    assert sum("/tags/list" in request for request in before) == len({name.split(":")[0] for name in IMAGES})


@pytest.mark.slow
def test_what_an_interrupted_push_has_left_without_a_tag_is_not_sent_again(site: Site) -> None:
    """A repository that has blobs only is one that the registry does not know."""
    image = IMAGES["team/app:v1"]
    kept = {f"{Digest.of(data)}": data for data in image.blobs[:2]}
    site.registry.blobs |= {("site/other/app", digest): data for digest, data in kept.items()}
    report = site.push()
    assert isinstance(report, SyncReport)
    assert report.failed == ()
    assert site.registry.has("site/team/app:v1", image)
    assert site.registry.has("site/other/app:v2", image)
    assert not [put for put in site.registry.asked("^PUT .*digest=") if any(digest[7:] in put for digest in kept)]
    blobs = {data for image in IMAGES.values() for data in image.blobs}
    assert report.sent == sum(map(len, blobs - set(kept.values())))


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403, 405])
def test_a_registry_that_says_nothing_of_repositories_is_asked_for_each_blob(site: Site, status: int) -> None:
    """To list tags is a permission of its own in some."""
    site.registry.fails = lambda request: status if "/tags/list" in request else None
    site.push()
    asked = [request for request in site.registry.requests if request.startswith("HEAD") and "/blobs/" in request]
    assert len(set(asked)) == sum(len(set(image.blobs)) for image in IMAGES.values())
    assert site.registry.asked("mount=.*from=site%2Fteam%2Fapp$") == []


@pytest.mark.slow
def test_a_tag_of_somebody_else_is_not_moved_and_nothing_is_sent(site: Site) -> None:
    other = make_image("other")
    site.registry.manifests["site/team/app", "v1"] = ("application/vnd.oci.image.manifest.v1+json", other.raw)
    with pytest.raises(UsageError, match="site/team/app:v1"):
        site.push()
    assert site.registry.asked("^(PUT|POST)") == []
    kept = site.push(existing=Existing.SKIP, dry_run=True)
    assert not isinstance(kept, SyncReport)
    assert {str(copy.entry.dest) for copy in kept} == {f"site/{name}" for name in IMAGES} - {"site/team/app:v1"}
    report = site.push(existing=Existing.REPLACE)
    assert isinstance(report, SyncReport)
    assert len(report.copied) == 3
    assert report.replaced == (TagMove(image="site/team/app:v1", old=other.top, new=IMAGES["team/app:v1"].top),)


@pytest.mark.slow
def test_an_immutable_tag_of_somebody_else_fails_its_image_whatever_was_asked_for(site: Site) -> None:
    other = make_image("other")
    site.registry.manifests["site/team/app", "v1"] = ("application/vnd.oci.image.manifest.v1+json", other.raw)
    report = site.push(existing=Existing.REPLACE, immutable=("v*",))
    assert isinstance(report, SyncReport)
    (failed,) = report.failed
    assert f"site/team/app:v1 is immutable: it is {other.top} there" in failed.error
    assert f"{IMAGES['team/app:v1'].top}" in failed.error
    assert site.registry.asked("^PUT .*site/team/app/manifests/v1") == []


# --- an image of some platforms


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """A storage with one platform of an image, and a whole one."""
    images = {"multi:v1": make_multi_image("m"), "app:v1": make_image("a")}
    root = make_storage(tmp_path / "whole", images)
    path = tmp_path / "part.tar"
    path.write_bytes(packed(parts_of(contents_of(root, listed("multi:v1", "linux/arm64"), "app:v1"), root)))
    return path


@pytest.mark.slow
def test_where_only_a_push_shows_it_a_dry_run_says_that_and_no_more(site: Site, partial: Path) -> None:
    """Such as distribution 3, which may be set to accept what it refuses by default."""
    planned = site.result(partial, dry_run=True).plan
    assert {f"{copy.entry.dest}" for copy in planned.copies} == {"site/app:v1", "site/multi:v1"}
    assert planned.unseen == ()
    (note,) = site.told.lines
    assert "1 image has some platforms only (site/multi:v1), and only a push shows whether" in note
    assert site.registry.asked("^(PUT|POST)") == []
    report = site.result(partial, dry_run=False).report
    assert report is not None
    assert (len(report.copied), report.failed) == (2, ())


@pytest.mark.slow
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_the_configuration_says_is_known_beforehand(site: Site, partial: Path, dry_run: bool) -> None:
    refused = site.result(partial, dry_run=dry_run, partial_indexes=False)
    (unseen,) = refused.plan.unseen
    assert "does not accept partial indexes, and site/multi:v1 has some platforms only" in unseen.error
    assert site.registry.asked("^PUT .*multi") == []
    accepted = site.result(partial, dry_run=dry_run, partial_indexes=True)
    assert accepted.plan.unseen == ()
    assert site.told.lines == []


@pytest.mark.slow
@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("failing", ["^HEAD .*/manifests/", "^HEAD .*/blobs/", "^PUT .*/manifests/"])
def test_ctrl_c_ends_a_push_that_waits_to_try_again(site: Site, failing: str) -> None:
    main, numbers = threading.main_thread().ident, itertools.count()
    assert main is not None

    def fails(request: str) -> int | None:
        if re.search(failing, request) is None:
            return None
        if next(numbers) == 0:
            signal.pthread_kill(main, signal.SIGINT)
        return 503

    site.registry.fails = fails
    started = time.monotonic()
    with pytest.raises(Interrupted):
        site.push()
    assert time.monotonic() - started < 30
    assert site.job.retry.stopping.is_set()


def compared(site: Site, source: Path, count: int) -> int:
    """How often a dry run compares two of anything: of `count` images, for which a Harbor has no project."""
    make_storage(source, {f"app-{n}:1": IMAGES["team/app:v1"] for n in range(count)})
    return calls_of(lambda: site.result(source, dry_run=True), "__eq__")


@pytest.mark.slow
def test_four_times_the_images_of_a_new_project_are_four_times_the_comparisons(site: Site, tmp_path: Path) -> None:
    with fake_harbor(site.registry.host) as harbor:
        site.registry.host, site.authfile = harbor.host, write_authfile(tmp_path / "auth.json", harbor.host, USER)
        few, many = (compared(site, tmp_path / f"{count}", count) for count in (40, 160))
    assert site.told.lines.count("project site does not exist") == 2
    assert many < few * 4 * 1.15
