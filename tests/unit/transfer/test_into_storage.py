"""Into a directory: by skopeo, out of another storage, over what a killed run left; what came is hashed."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.examine import verify_storage
from regwrap.commands.sync import SyncOptions, copy_images
from regwrap.core.errors import IntegrityError, ToolError, UsageError
from regwrap.core.listener import SILENT, Outlook
from regwrap.core.location import Engine, Location
from regwrap.core.manifest import OCI_MANIFEST, Descriptor, Manifest
from regwrap.core.model import Digest
from regwrap.lists.imagelist import parse_images
from regwrap.storage.commit import Additions, GroupCommit
from regwrap.storage.lock import locked_storage
from regwrap.storage.store import Storage, ValidBlobs
from regwrap.storage.tree import Tree
from regwrap.tools.skopeo import Remote
from regwrap.transfer.endpoints import Endpoints, Writing
from regwrap.transfer.engines import transfer_images
from regwrap.transfer.fetch import Stage
from regwrap.transfer.into_storage import StorageDestination
from tests.builders import (
    Image,
    flip,
    index_of,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    put,
    snapshot,
    truncate,
)
from tests.builders import storage_problems as problems_in
from tests.fakes import Answer, Argv, Scripted
from tests.lost import lose
from tests.unit.cli.programs import curl
from tests.unit.transfer.between import Between, between

BASE = make_layer("base")
APP, TOOL = make_image("app", layers=[BASE, make_layer("app")]), make_image("tool", layers=[BASE, make_layer("tool")])
MULTI, OTHER = make_multi_image("multi"), make_image("other")
LAYER = Digest.of(APP.blobs[2])


def stage_of(root: Path) -> Path:
    return root / ".regwrap/sync"


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root", {"team/app:1": APP, "team/tool:1": TOOL, "multi:1": MULTI}) as found:
        yield found


class Copying:
    """skopeo copy into a layout that shares its blobs. `changes` are other bytes for a blob, or none at all, one a
    start; `heard` is asked before anything is written."""

    def __init__(self, *images: Image) -> None:
        self.data = {Digest.of(part): part for image in images for part in (*image.manifests, *image.blobs)}
        self.changes: list[dict[Digest, bytes | None]] = []
        self.heard: list[tuple[Path, Path]] = []
        self.during: Callable[[Path, Path], None] = lambda _layout, _shared: None

    def answer(self) -> Answer:
        return Answer(when=lambda argv: argv[0] == "skopeo" and "copy" in argv, effect=self, repeats=True)

    def __call__(self, argv: Argv) -> None:
        layout, shared = Path(argv[-1].split(":")[1]), Path(argv[argv.index("--dest-shared-blob-dir") + 1], "sha256")
        self.heard.append((layout, shared))
        self.during(layout, shared)
        changes = self.changes.pop(0) if self.changes else {}
        manifest = json.loads(self.data[Digest(argv[-2].rpartition(":")[2])])
        for part in (manifest["config"], *manifest["layers"]):
            digest = Digest.parse(part["digest"])
            data = changes.get(digest, self.data[digest])
            if data is not None and not (shared / digest.hex).exists():
                (shared / digest.hex).write_bytes(data)


# --- by skopeo copy


@pytest.mark.slow
def test_a_copy_comes_whole_and_its_stage_goes(two: Between) -> None:
    copying, layouts = Copying(MULTI), list[list[str]]()
    two.scripted.launcher.answers.append(copying.answer())
    copying.during = lambda layout, _shared: layouts.append(sorted(path.name for path in layout.parent.iterdir()))
    report = two.sync(two.job(Engine.COPY, archive=two.directory), "multi:1")
    assert layouts == [["1"], ["2"]], "what skopeo leaves of one manifest does not lie there beside the next"
    assert report.sent == sum(map(len, MULTI.blobs))
    assert not problems_in(two.root)
    assert two.storage.resolve("multi", "1") == MULTI.top
    assert not stage_of(two.root).exists()
    assert [layout.name for layout, _shared in copying.heard] == ["1", "2"]


def test_the_storages_lock_is_held_as_long_as_a_skopeo_that_writes_into_it(two: Between) -> None:
    """A killed regwrap leaves its skopeo behind for a moment: nobody else may write meanwhile."""
    locks: list[str] = []
    copying = Copying(APP)
    two.scripted.launcher.answers.append(copying.answer())

    def look(_layout: Path, _shared: Path) -> None:
        (descriptor,) = two.scripted.launcher.started[-1].inherit
        locks.append(f"{Path(f'/proc/self/fd/{descriptor}').readlink()}")

    copying.during = look
    two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    assert locks == [f"{two.root}/.regwrap/lock"]


@pytest.mark.parametrize("exclusive", [False, True])
def test_nothing_is_synced_into_a_storage_that_is_in_use(two: Between, *, exclusive: bool) -> None:
    """A gc would take blobs for garbage whose tags are still to come."""
    make_storage(two.root, {"old/tool:1": TOOL})
    job = two.job(archive=two.directory)
    with (
        locked_storage(Tree(two.root), exclusive=exclusive, timeout=0, on_wait=two.told.log),
        pytest.raises(UsageError, match="in use"),
    ):
        two.run(replace(job, timeouts=replace(job.timeouts, lock=0)), "team/app:1")
    assert two.storage.resolve("team/app", "1") is None


def test_skopeo_sees_the_blobs_that_are_there_and_leaves_them_alone(two: Between) -> None:
    make_storage(two.root, {"old/tool:1": TOOL})
    before = snapshot(two.root / "docker/registry/v2/blobs")
    copying = Copying(APP)
    two.scripted.launcher.answers.append(copying.answer())
    links: list[tuple[str, str]] = []
    copying.during = lambda _layout, shared: links.extend(
        (path.name, f"{path.readlink()}") for path in shared.iterdir()
    )
    report = two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    base = Digest.of(BASE)
    assert links == [(base.hex, f"{two.storage.blob_path(base)}")]
    assert report.sent == sum(map(len, APP.blobs)) - len(BASE)
    after = snapshot(two.root / "docker/registry/v2/blobs")
    assert {path: after[path] for path in before} == before
    assert not problems_in(two.root)


def test_an_image_that_is_there_by_another_name_gets_links_and_no_byte_is_written_again(two: Between) -> None:
    """Backups by rsync would take all of it once more."""
    make_storage(two.root, {"old/app:1": APP})
    paths = [two.storage.blob_path(Digest.of(data)) for data in (*APP.blobs, *APP.manifests)]
    before = [path.stat().st_ino for path in paths]
    report = two.sync(two.job(archive=two.directory), "team/app:1")
    assert (len(report.copied), report.sent) == (1, 0)
    assert [path.stat().st_ino for path in paths] == before
    assert not problems_in(two.root)


@pytest.mark.slow
def test_two_manifests_of_an_image_see_the_same_blob_that_is_there(two: Between) -> None:
    both = index_of([APP, TOOL])
    two.source.hold("both:1", both)
    make_storage(two.root, {"old:1": make_image("old", layers=[BASE])})
    two.scripted.launcher.answers.append(Copying(both).answer())
    report = two.sync(two.job(Engine.COPY, archive=two.directory), "both:1")
    assert report.sent == sum(map(len, {*both.blobs} - {BASE}))
    assert not problems_in(two.root)


def test_a_layout_that_cannot_be_removed_yet_is_no_failure(two: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, refused = shutil.rmtree, list[str]()

    def busy(name: str, *, dir_fd: int | None = None) -> None:
        if name == "1" and not refused:
            refused.append(name)
            raise OSError(errno.EBUSY, "Device or resource busy")
        remove(name, dir_fd=dir_fd)

    two.scripted.launcher.answers.append(Copying(APP).answer())
    monkeypatch.setattr(shutil, "rmtree", busy)
    two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    assert refused
    assert not problems_in(two.root)
    assert not stage_of(two.root).exists()


@pytest.mark.slow
def test_a_skopeo_that_fails_leaves_nothing_beside_the_next(two: Between) -> None:
    """It may be gigabytes of a layer."""
    copying, layouts = Copying(TOOL), list[list[str]]()
    copying.during = lambda layout, _shared: layouts.append(sorted(path.name for path in layout.parent.iterdir()))
    fails = Answer(when=lambda argv: f"{APP.top}" in argv[-2], exit_code=1, stderr=b'level=fatal msg="no"')
    two.scripted.launcher.answers += [fails, copying.answer()]
    leave(two.root)
    report = two.run(two.job(Engine.COPY, archive=two.directory), "team/app:1", "team/tool:1").report
    assert report is not None
    assert [f"{failed.entry.dest}" for failed in report.failed] == ["team/app:1"]
    assert layouts in ([["2"]], [["1"]]), "the larger image is the first"
    assert not problems_in(two.root)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            b"x" * len(APP.blobs[2]),
            f"arrived damaged ({len(APP.blobs[2])} of {len(APP.blobs[2])} bytes, or other ones)",
        ),
        (b"short", f"arrived damaged (5 of {len(APP.blobs[2])} bytes, or other ones)"),
        (None, "did not arrive"),
    ],
)
def test_what_arrives_otherwise_is_fetched_again(two: Between, wrong: bytes | None, said: str) -> None:
    copying = Copying(APP)
    copying.changes = [{LAYER: wrong}]
    two.scripted.launcher.answers.append(copying.answer())
    two.attempts = 2
    (copied,) = two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1").copied
    assert copied.attempts == 2
    message = f"{two.source.host}/team/app@{APP.top}: blob {LAYER.short} {said}"
    assert two.told.said[1] == f"retrying team/app:1 1 {message}"
    assert not problems_in(two.root)


def test_what_arrives_damaged_each_time_is_never_shown(two: Between) -> None:
    copying = Copying(APP)
    copying.changes = [{LAYER: b"short"}]
    two.scripted.launcher.answers.append(copying.answer())
    report = two.run(two.job(Engine.COPY, archive=two.directory), "team/app:1").report
    assert report is not None
    (failed,) = report.failed
    assert "arrived damaged" in failed.error
    assert two.storage.tags("team/app") == ()
    assert two.storage.blob_size(LAYER) is None
    assert failed.sent == sum(map(len, APP.blobs)) - len(APP.blobs[2])
    assert not (stage_of(two.root) / "blobs/sha256" / LAYER.hex).exists()
    again = two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    assert again.sent == len(APP.blobs[2]), "what came right is there for the next run"


def test_the_progress_line_counts_what_skopeo_is_writing(two: Between) -> None:
    seen: list[Outlook] = []
    copying = Copying(APP)
    two.scripted.launcher.answers.append(copying.answer())

    def look(layout: Path, _shared: Path) -> None:
        (layout / "oci-put-blob1").write_bytes(b"12345")
        (layout / "oci-put-blob2").write_bytes(b"123")
        (layout / "index.json").write_bytes(b"{}")
        (layout.parent / "9").symlink_to("what ends while it is looked at")
        seen.append(two.told.looks[-1]())

    copying.during = look
    report = two.sync(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    assert seen == [Outlook(8, report.sent - 8)]
    assert two.told.looks[-1]() == Outlook(report.sent, 0)


@pytest.mark.slow
def test_skopeo_does_not_write_as_root_where_somebody_else_makes_the_names(
    two: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would follow the links that he puts there."""
    make_storage(two.root, {})
    if os.geteuid() == 0:
        os.chown(two.root, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UsageError, match=f"--engine copy lets skopeo write into {two.root} as root"):
        two.run(two.job(Engine.COPY, archive=two.directory), "team/app:1")
    assert two.started("copy") == []
    if os.geteuid() == 0:  # what regwrap writes itself, it writes as the owner
        for path in two.root.rglob("*"):
            os.chown(path, 65534, 65534)
        two.scripted.launcher.answers.append(curl())
        two.sync(two.job(archive=two.directory), "team/app:1")


# --- what a killed run left


def leave(root: Path, *blobs: tuple[Digest, bytes]) -> Path:
    stage = stage_of(root)
    for digest, data in blobs:
        put(stage / "blobs/sha256" / digest.hex, data)
    put(stage / "copies/1/index.json", b"{}")
    put(stage / "links/0", b"sha256:")
    return stage


@pytest.mark.slow
def test_blobs_that_a_killed_run_left_are_hashed_and_need_not_travel_again(two: Between) -> None:
    config, base, layer = APP.blobs
    stage = leave(two.root, (Digest.of(config), config), (Digest.of(base), b"x" * len(base)), (LAYER, layer[:3]))
    two.scripted.launcher.answers.append(curl())
    put(stage / "blobs/sha256" / APP.top.hex, b"no manifest")
    report = two.sync(two.job(archive=two.directory), "team/app:1")
    assert report.sent == len(base) + len(layer)
    assert not problems_in(two.root)
    assert not stage.exists()


def test_what_is_wrong_in_a_stage_is_gone_once_it_was_looked_at(tmp_path: Path) -> None:
    """What is fetched anew comes to its place."""
    stage = Stage(Tree(tmp_path))
    blob = Descriptor(media_type="", digest=LAYER, size=len(APP.blobs[2]))
    path = put(tmp_path / stage.blob(LAYER), APP.blobs[2])
    assert stage.has(blob)
    for wrong in (b"x" * blob.size, b"short"):
        path.write_bytes(wrong)
        assert not stage.has(blob)
        assert not path.exists()


def test_what_our_own_disk_does_not_give_back_is_no_end_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody blames the registry for it, and the next run fetches it again."""
    stage = Stage(Tree(tmp_path))
    blob = Descriptor(media_type="", digest=LAYER, size=len(APP.blobs[2]))
    left, part = (put(tmp_path / name, APP.blobs[2]) for name in (stage.blob(LAYER), stage.part(LAYER)))
    lose(monkeypatch, left)
    assert not stage.has(blob)
    monkeypatch.undo()
    lose(monkeypatch, part)
    with pytest.raises(OSError, match="Input/output error") as raised:
        stage.accept_part(blob)
    assert raised.value.filename == f"{part}"
    assert not left.exists()
    assert not part.exists()


@pytest.mark.slow
def test_what_a_killed_run_left_of_an_image_that_cannot_be_seen_now_stays_for_the_next(two: Between) -> None:
    stage = leave(two.root, (Digest.of(OTHER.blobs[1]), OTHER.blobs[1]))
    two.scripted.launcher.answers.append(curl())
    report = two.run(two.job(archive=two.directory), "team/app:1", "away:1").report
    assert report is not None
    assert len(report.copied) == 1
    assert [path.name for path in stage.rglob("*") if path.is_file()] == [Digest.of(OTHER.blobs[1]).hex]


def test_a_run_that_copies_nothing_removes_them_too(two: Between) -> None:
    make_storage(two.root, {"team/app:1": APP})
    stage = leave(two.root, (LAYER, APP.blobs[2]))
    assert len(two.sync(two.job(archive=two.directory), "team/app:1").skipped) == 1
    assert not stage.exists()


def test_a_dry_run_leaves_everything_as_it_is(two: Between) -> None:
    make_storage(two.root, {"team/tool:1": TOOL})
    leave(two.root, (LAYER, APP.blobs[2]))
    before = snapshot(two.root)
    result = two.run(two.job(archive=two.directory), "team/app:1", options=SyncOptions(dry_run=True))
    assert [f"{copy.entry.dest}" for copy in result.plan.copies] == ["team/app:1"]
    assert snapshot(two.root) == before


def hold_huge(two: Between) -> None:
    """An image that has room nowhere."""
    config = b'{"os": "linux", "architecture": "amd64"}'
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "x", "digest": f"{Digest.of(config)}", "size": len(config)},
            "layers": [{"mediaType": "x", "digest": f"{Digest.of(b'huge')}", "size": 2**60}],
        }
    ).encode()
    two.source.hold("huge:1", Image((raw,), (config, b"huge")))


def test_a_disk_without_space_is_said_before_anything_starts(two: Between) -> None:
    hold_huge(two)
    with pytest.raises(ToolError, match="space") as raised:
        two.run(two.job(archive=two.directory), "huge:1")
    assert "choose another archive" in raised.value.hint
    assert two.scripted.launcher.started == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine.COPY, Engine.AUTO])
def test_an_image_that_alone_has_no_room_is_not_begun_and_keeps_no_other_away(two: Between, engine: Engine) -> None:
    hold_huge(two)
    two.scripted.launcher.answers += [curl(), Copying(APP).answer()]
    report = two.run(two.job(engine, archive=two.directory), "huge:1", "team/app:1").report
    assert report is not None
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["team/app:1"]
    (failed,) = report.failed
    assert "not enough space" in failed.error
    assert len(two.scripted.launcher.started) == 1
    assert not problems_in(two.root)


# --- out of another storage


def old(two: Between, **images: Image) -> tuple[Location, Storage]:
    root = make_storage(two.root.with_name("old"), {f"{name}:1": image for name, image in images.items()})
    return Location(name="old", storage=root), Storage(root)


@pytest.mark.slow
def test_a_storage_gives_what_is_absent_and_keeps_its_own(two: Between) -> None:
    place, source = old(two, app=APP, multi=MULTI)
    before = snapshot(source.root)
    report = two.sync(two.job(archive=two.directory, source=place), "app:1", "multi:1")
    assert report.sent == sum(map(len, {*APP.blobs, *MULTI.blobs}))
    assert not problems_in(two.root)
    assert {path: state for path, state in snapshot(source.root).items() if not path.startswith(".regwrap")} == before
    assert two.scripted.launcher.started == []


def test_a_blob_that_is_cut_at_the_source_is_named_and_not_taken(two: Between) -> None:
    place, source = old(two, app=APP)
    truncate(source.blob_path(LAYER))
    said = two.failure(two.job(archive=two.directory, source=place), "app:1")
    assert f"blob {LAYER.short} is absent or damaged in {source.root} " in said
    assert f"regwrap verify {source.root}" in said
    assert two.storage.tags("app") == ()


def test_a_blob_that_is_rotten_at_the_source_is_never_shown(two: Between) -> None:
    place, source = old(two, app=APP)
    flip(source.blob_path(LAYER))
    said = two.failure(two.job(archive=two.directory, source=place), "app:1")
    assert f"{source.root}: blob {LAYER.short} arrived damaged" in said
    assert two.storage.tags("app") == ()
    assert two.storage.blob_size(LAYER) is None


@pytest.mark.parametrize("lost", ["layer", "index", "blob", "rot"])
def test_an_image_that_is_there_in_part_is_mended(two: Between, lost: str) -> None:
    place, _source = old(two, app=APP)
    make_storage(two.root, {"app:1": APP})
    repositories = two.root / "docker/registry/v2/repositories/app"
    if lost == "layer":
        (repositories / f"_layers/sha256/{LAYER.hex}/link").unlink()
    elif lost == "index":
        (repositories / f"_manifests/tags/1/index/sha256/{APP.top.hex}/link").unlink()
    elif lost == "blob":
        two.storage.blob_path(LAYER).unlink()
    else:
        flip(two.storage.blob_path(LAYER))
    options = SyncOptions(hashed=lost == "rot")
    (copied,) = two.sync(two.job(archive=two.directory, source=place), "app:1", options=options).copied
    assert copied.copy.reason == "there, but damaged or incomplete: it is copied again"
    assert not problems_in(two.root)
    assert two.storage.has_tag("app", "1", APP.top)
    assert len(two.sync(two.job(archive=two.directory, source=place), "app:1", options=options).skipped) == 1


@pytest.mark.slow
def test_unless_it_was_said_otherwise_what_is_there_counts_once_it_was_hashed(two: Between) -> None:
    make_storage(two.root, {"old/tool:1": TOOL})
    flip(two.storage.blob_path(Digest.of(BASE)))
    two.scripted.launcher.answers.append(curl())
    job = two.job(archive=two.directory)
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        plan = two.run(job, "team/app:1", options=SyncOptions(dry_run=True)).plan
        report = transfer_images(plan, endpoints.of(two.directory), endpoints=endpoints, writing=Writing())
    assert report.sent == sum(map(len, APP.blobs))
    assert not problems_in(two.root)


# --- above a storage that is only read


@pytest.mark.slow
def test_an_upper_gets_the_blobs_and_the_root_above_it_the_links(two: Between) -> None:
    """For one run: history keeps its bytes, and what is new lies beside it."""
    history = make_storage(two.root.with_name("history"), {"team/tool:1": TOOL})
    before = snapshot(history)
    upper = two.root.with_name("upper")
    upper.mkdir()
    two.root.mkdir()
    two.scripted.launcher.answers.append(curl())
    dest_place = Location(name="root", storage=two.root)
    job = two.job(archive=dest_place)
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        dest = endpoints.of(dest_place)
        images = parse_images(b"team/app:1", "images.list")
        options = SyncOptions()
        copy_images(endpoints, dest, images, options=options, writing=Writing(upper=upper))
    seen = Storage(two.root, below=(upper,))
    assert seen.has_tag("team/app", "1", APP.top)
    closure = seen.closure("team/app", APP.top)
    assert closure is not None
    assert all(seen.is_valid(blob, hashed=True) for blob in closure.blobs)
    assert all(seen.has_layer("team/app", blob.digest) for blob in closure.blobs)
    assert {path.name for path in (upper / "docker/registry/v2/blobs/sha256").glob("*/*")} == {
        Digest.of(data).hex for data in (*APP.blobs, APP.raw)
    }
    assert not (two.root / "docker/registry/v2/blobs").exists()
    assert snapshot(history) == before


# --- what is made sure at the end


class Nothing:
    """A fetcher for blobs that are all in the stage."""

    def fetch(self, source: Remote, leaf: Manifest, absent: object) -> None:
        raise AssertionError(f"{source} {leaf} {absent}")

    def bytes_under_way(self) -> int:
        return 0


def destination(two: Between, commit: GroupCommit) -> StorageDestination:
    place, _source = old(two, app=APP)
    (two.root / "stage/blobs/sha256").mkdir(parents=True)
    job = two.job(archive=two.directory, source=place)
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
    storage = two.storage
    return StorageDestination(
        storage=storage,
        stage=Stage(Tree(two.root / "stage")),
        source_of=endpoints.source_of,
        fetcher=Nothing(),
        commit=commit,
        valid=ValidBlobs(storage=storage, hashed=True),
    )


def test_a_tag_that_does_not_lead_to_the_image_afterwards_is_no_success(two: Between) -> None:
    place, _source = old(two, app=APP)
    copy = two.copy_of(two.job(archive=two.directory, source=place), "app:1")
    with pytest.raises(IntegrityError, match=f"app:1 does not point to {APP.top} after the copy"):
        destination(two, GroupCommit(lambda _additions: None)).copy_image(copy)


def test_a_staged_file_that_another_copy_has_moved_in_is_tried_again(two: Between) -> None:
    def gone(_additions: Additions) -> None:
        raise FileNotFoundError(2, "No such file or directory", "blob")

    place, _source = old(two, app=APP)
    copy = two.copy_of(two.job(archive=two.directory, source=place), "app:1")
    with pytest.raises(ToolError, match="app:1: a staged file disappeared") as raised:
        destination(two, GroupCommit(gone)).copy_image(copy)
    assert raised.value.transient


def test_what_is_committed_is_the_whole_image_and_nothing_twice(two: Between) -> None:
    added: list[Additions] = []
    place, _source = old(two, app=APP)
    copy = two.copy_of(two.job(archive=two.directory, source=place), "app:1")
    with pytest.raises(IntegrityError):
        destination(two, GroupCommit(added.append)).copy_image(copy)
    (additions,) = added
    digests = [digest for digest, _name in additions.blobs]
    assert sorted(digests) == sorted(Digest.of(data) for data in (*APP.blobs, APP.raw))
    stage = two.root / "stage"
    assert all(Digest.of((stage / name).read_bytes()) == digest for digest, name in additions.blobs)
    assert additions.layers == tuple(("app", Digest.of(blob)) for blob in APP.blobs)
    assert additions.revisions == (("app", APP.top),)
    assert additions.tags == (("app", "1", APP.top),)


# --- through a pipe


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [b"x" * len(APP.blobs[2]), APP.blobs[2][:-1], b""], ids=["other", "cut", "empty"])
def test_what_comes_through_a_pipe_is_hashed_before_it_counts(two: Between, wrong: bytes) -> None:
    two.scripted.launcher.answers.append(curl(changed={APP.blobs[2]: wrong}))
    report = two.run(two.job(archive=two.directory), "team/app:1", "team/tool:1").report
    assert report is not None
    (failed,) = report.failed
    size = len(APP.blobs[2])
    assert f"blob {LAYER.short} arrived damaged ({len(wrong)} of {size} bytes, or other ones)" in failed.error
    assert two.storage.tags("team/app") == ()
    assert two.storage.blob_size(LAYER) is None
    assert two.storage.resolve("team/tool", "1") == TOOL.top
    assert not problems_in(two.root)
    staged = {path.name: path.read_bytes() for path in stage_of(two.root).rglob("*") if path.is_file()}
    assert LAYER.hex not in staged
    assert {Digest.of(data).hex for data in staged.values()} == staged.keys()  # whole ones stay for the next run
    assert two.told.looks[-1]() == Outlook(report.sent - len(wrong), 0)


@pytest.mark.slow
def test_all_that_was_sent_is_counted_once(two: Between) -> None:
    two.scripted.launcher.answers.append(curl())
    report = two.sync(two.job(archive=two.directory), "team/app:1", "team/tool:1", "multi:1")
    assert report.sent == sum(map(len, {*APP.blobs, *TOOL.blobs, *MULTI.blobs}))
    assert two.told.expected == [("sync", report.sent)]
    assert len(two.scripted.launcher.started) == 1


# --- from a disk, or onto one, that does not give all bytes


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("lost", [LAYER, APP.top])
def test_what_the_archive_s_disk_does_not_give_any_more_is_repaired(
    two: Between, monkeypatch: pytest.MonkeyPatch, lost: Digest, number: int
) -> None:
    two.scripted.launcher.answers.append(curl())
    make_storage(two.root, {"team/app:1": APP, "team/tool:1": TOOL})
    lose(monkeypatch, two.storage.blob_path(lost), number)
    report = two.sync(two.job(archive=two.directory), "team/app:1", "team/tool:1", options=SyncOptions(hashed=True))
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["team/app:1"]
    assert not problems_in(two.root)
    assert verify_storage(two.root, None, SILENT).problems == ()


@pytest.mark.parametrize("lost", [LAYER, APP.top])
def test_what_a_source_s_disk_does_not_give_fails_the_images_that_need_it(
    two: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Digest
) -> None:
    root = make_storage(tmp_path / "old", {"team/app:1": APP, "team/tool:1": TOOL})
    path = Storage(root).blob_path(lost)
    lose(monkeypatch, path)
    job = two.job(archive=two.directory, source=Location(name="old", storage=root))
    result = two.run(job, "team/app:1", "team/tool:1")
    assert result.report is not None
    (failed,) = result.report.failed
    assert f"{failed.entry.dest}" == "team/app:1"
    assert f"blob {lost} cannot be read from {path}: Input/output error" in failed.error
    assert [f"{item.copy.entry.dest}" for item in result.report.copied] == ["team/tool:1"]
