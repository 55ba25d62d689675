"""Merging a bundle: twice is once, the next run mends a crash at any moment, and a refusal changes nothing."""

import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.commands.deploy import DeployReport, deploy_bundle
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing, TagMove
from regwrap.report.text import deploy_text
from regwrap.storage import layout
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from tests.builders import (
    add_newline,
    empty,
    fill_with_garbage,
    flip,
    make_image,
    make_multi_image,
    make_storage,
    put,
    remove,
    replace_by_fifo,
    replace_by_symlink,
    snapshot,
    storage_problems,
    truncate,
)
from tests.bundles import make_bundle
from tests.crashing import Died, DyingFiles, directory_in_memory
from tests.lost import lose

OTHER, OLD, NEW = make_image("other"), make_image("old"), make_image("new")
MULTI = make_multi_image("multi")
IMAGES = {"app/web:1": MULTI, "app/web:latest": NEW}
THERE = {"kept:1": OTHER, "app/web:0": OTHER}
MOVE = TagMove(image="app/web:latest", old=OLD.top, new=NEW.top)
NOTHING = DeployReport(images=0, tags_added=(), tags_replaced=(), tags_kept=(), blobs_added=0, bytes_added=0, mended=0)
STAGE = ".regwrap/deploy"
State = dict[str, tuple[str, int, int, str]]


def deploy(
    bundle: Path,
    root: Path,
    *,
    existing: Existing = Existing.FAIL,
    dry_run: bool = False,
    files_for: Callable[[Owner], Files] | None = None,
) -> DeployReport:
    options = ImportOptions(existing=existing, dry_run=dry_run, lock_timeout=0)
    return deploy_bundle(bundle, root, options, Silent(), files_for or living)


def living(owner: Owner) -> DyingFiles:
    return DyingFiles(RealFiles(owner), left=10**9)


def repeat_of(files: Files) -> Callable[[Owner], Files]:
    return lambda _owner: files


def registry_state(root: Path) -> State:
    """All but regwrap's own directory, where the lock is."""
    return {path: state for path, state in snapshot(root).items() if not path.startswith(".regwrap")}


def timeless(root: Path) -> State:
    """All but the note that says when the release came."""
    return {path: state for path, state in snapshot(root).items() if not path.endswith(".note")}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "release", IMAGES)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "customer", THERE)


@pytest.fixture
def memory() -> Iterator[Path]:
    with directory_in_memory() as directory:
        yield directory


def blob_of(image_blob: bytes) -> str:
    return layout.blob_path(Digest.of(image_blob))


def test_into_nothing_it_is_the_archive_again(bundle: Path, tmp_path: Path) -> None:
    root = tmp_path / "a" / "new"
    report = deploy(bundle, root)
    archive = tmp_path / "release/archive"
    files = {p.relative_to(archive): p.read_bytes() for p in archive.rglob("*") if p.is_file()}
    after = {p.relative_to(root): p.read_bytes() for p in (root / "docker").rglob("*") if p.is_file()}
    assert after == files
    assert storage_problems(root) == set()
    blobs = {*MULTI.blobs, *MULTI.manifests, *NEW.blobs, *NEW.manifests}
    assert report == DeployReport(
        images=2, tags_added=("app/web:1", "app/web:latest"), tags_replaced=(), tags_kept=(),
        blobs_added=len(blobs), bytes_added=sum(map(len, blobs)), mended=0,
    )  # fmt: skip
    assert not (root / STAGE).exists()


def test_other_images_stay_as_they_are(bundle: Path, used: Path) -> None:
    before = snapshot(used)
    deploy(bundle, used)
    after = snapshot(used)
    assert {path: after[path] for path in before} == before
    assert storage_problems(used) == set()


@pytest.mark.slow
def test_twice_is_once(bundle: Path, used: Path) -> None:
    deploy(bundle, used)
    inodes = {path: path.lstat().st_ino for path in used.rglob("*")}
    before = snapshot(used)
    report = deploy(bundle, used)
    assert snapshot(used) == before
    assert {path: path.lstat().st_ino for path in used.rglob("*")} == inodes
    assert report == DeployReport(
        images=2, tags_added=(), tags_replaced=(), tags_kept=(), blobs_added=0, bytes_added=0, mended=0
    )


def test_a_tag_that_is_another_image_is_refused_and_nothing_is_changed(bundle: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"app/web:latest": OLD, **THERE})
    before = registry_state(root)
    with pytest.raises(UsageError, match="1 tag in") as caught:
        deploy(bundle, root)
    assert caught.value.detail == f"app/web:latest: is {OLD.top}, {bundle} has {NEW.top}"
    assert registry_state(root) == before
    assert not (root / STAGE).exists()
    report = deploy(bundle, root, existing=Existing.REPLACE)
    assert (report.tags_added, report.tags_replaced) == (("app/web:1",), (MOVE,))
    assert Storage(root).resolve("app/web", "latest") == NEW.top
    assert storage_problems(root) == set()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, truncate, empty, replace_by_fifo, replace_by_symlink, remove])
def test_a_broken_blob_is_mended(bundle: Path, used: Path, damage: Callable[[Path], None]) -> None:
    deploy(bundle, used)
    before = registry_state(used)
    damage(used / blob_of(NEW.blobs[1]))
    report = deploy(bundle, used)
    after = registry_state(used)
    assert {path: after[path] for path in before} == before
    assert storage_problems(used) == set()
    mended = damage in {flip, truncate, empty}  # a fifo or a symbolic link is no blob that was there
    assert (report.mended, report.blobs_added, report.bytes_added) == (
        (1, 0, 0) if mended else (0, 1, len(NEW.blobs[1]))
    )


@pytest.mark.parametrize("damage", [truncate, empty, add_newline, fill_with_garbage, remove, replace_by_symlink])
def test_broken_links_are_rewritten(bundle: Path, used: Path, damage: Callable[[Path], None]) -> None:
    deploy(bundle, used)
    before = registry_state(used)
    for link in (
        layout.tag_link("app/web", "1"),
        layout.tag_index_link("app/web", "1", MULTI.top),
        layout.revision_link("app/web", NEW.top),
        layout.layer_link("app/web", Digest.of(NEW.blobs[0])),
    ):
        damage(used / link)
    deploy(bundle, used)
    after = registry_state(used)
    assert {path: after[path] for path in before} == before


def test_a_tag_that_is_another_image_may_stay_and_the_image_is_there_to_go_to(bundle: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"app/web:latest": OLD})
    report = deploy(bundle, root, existing=Existing.SKIP)
    assert (report.tags_added, report.tags_replaced, report.tags_kept) == (("app/web:1",), (), (MOVE,))
    assert Storage(root).resolve("app/web", "latest") == OLD.top
    assert Storage(root).closure("app/web", NEW.top) is not None
    assert f"  app/web:latest  stays {OLD.top}, not {NEW.top}" in deploy_text(report, root, dry_run=False)
    assert storage_problems(root) == set()


def test_a_dry_run_changes_nothing(bundle: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"app/web:latest": OLD})
    before = snapshot(root)
    with pytest.raises(UsageError, match="1 tag in") as refused:  # as the real run would end
        deploy(bundle, root, dry_run=True)
    assert refused.value.detail == f"app/web:latest: is {OLD.top}, {bundle} has {NEW.top}"
    report = deploy(bundle, root, existing=Existing.REPLACE, dry_run=True)
    assert snapshot(root) == before
    assert (report.tags_added, report.tags_replaced) == (("app/web:1",), (MOVE,))
    lines = deploy_text(report, root, dry_run=True).splitlines()
    assert lines[:2] == ["1 tag would mean another image:", f"  app/web:latest  {OLD.top} -> {NEW.top}"]
    absent = deploy(bundle, tmp_path / "absent", dry_run=True)
    assert absent.tags_added == ("app/web:1", "app/web:latest")
    assert (absent.blobs_added, absent.mended) == (deploy(bundle, tmp_path / "new").blobs_added, 0)
    assert not (tmp_path / "absent").exists()


def test_a_dry_run_tells_a_blob_that_is_cut_off_from_one_that_is_not_there(bundle: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"app/web:1": MULTI})
    blob = root / blob_of(MULTI.blobs[0])
    blob.write_bytes(blob.read_bytes()[:-1])
    said, done = (deploy(bundle, root, existing=Existing.REPLACE, dry_run=dry) for dry in (True, False))
    assert (said.blobs_added, said.bytes_added, said.mended) == (done.blobs_added, done.bytes_added, 1)
    assert done.mended == 1
    assert deploy_text(said, root, dry_run=True).endswith(", 1 damaged blob to repair")


@pytest.mark.exhaustive
def test_a_crash_at_any_operation_is_mended_by_the_next_run(memory: Path) -> None:
    bundle = make_bundle(memory / "release", IMAGES)
    template = make_storage(memory / "template", {"app/web:latest": OLD, **THERE})
    flip(put(template / blob_of(NEW.blobs[1]), NEW.blobs[1]))
    kept = {path: s for path, s in registry_state(template).items() if "/kept" in path or "/tags/0" in path}
    whole = shutil.copytree(template, memory / "whole")
    counted: list[DyingFiles] = []

    def counting(owner: Owner) -> Files:
        counted.append(living(owner))
        return counted[0]

    deploy(bundle, whole, existing=Existing.REPLACE, files_for=counting)
    expected = timeless(whole)
    assert len(counted[0].done) > 40
    for k, half in itertools.product(range(len(counted[0].done)), (False, True)):
        if half and counted[0].done[k] not in {"write", "make_directory"}:
            continue  # those are done or not
        root = shutil.copytree(template, memory / "crashed")
        dying = DyingFiles(RealFiles(Owner.of(Tree(root))), left=k, half=half)
        with pytest.raises(Died):
            deploy(bundle, root, existing=Existing.REPLACE, files_for=repeat_of(dying))
        put(root / STAGE / "half", b"what a killed run leaves")
        assert storage_problems(root) == set(), f"after operation {k}"
        storage = Storage(root)
        assert storage.resolve("app/web", "latest") in {OLD.top, NEW.top}
        assert storage.resolve("app/web", "1") in {None, MULTI.top}
        after = snapshot(root)
        assert {path: after[path] for path in kept} == kept
        deploy(bundle, root, existing=Existing.REPLACE)
        assert timeless(root) == expected, f"after operation {k} and again"
        shutil.rmtree(root)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_owner_and_modes_are_those_of_the_root(bundle: Path, tmp_path: Path, umask: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(root, *owner)
    root.chmod(0o755)
    before = os.umask(umask)
    try:
        deploy(bundle, root)
    finally:
        os.umask(before)
    states = [path.lstat() for path in (root / "docker", *(root / "docker").rglob("*"))]
    assert {stat.filemode(s.st_mode) for s in states} == {"drwxr-xr-x", "-rw-r--r--"}
    assert {(s.st_uid, s.st_gid) for s in states} == {owner}


@pytest.mark.slow
def test_a_rotten_blob_in_the_bundle_is_named_and_nothing_is_changed(bundle: Path, used: Path) -> None:
    deploy(bundle, used / "elsewhere")
    data = bytearray(bundle.read_bytes())
    wanted = sorted([Digest.of(NEW.blobs[1]), Digest.of(MULTI.blobs[1])])
    for blob in (NEW.blobs[1], MULTI.blobs[1]):
        data[data.index(blob) + 5] ^= 4
    bundle.write_bytes(data)
    before = registry_state(used)
    with pytest.raises(IntegrityError, match="nothing was changed") as caught:
        deploy(bundle, used)
    assert caught.value.problems == tuple(f"blob {digest} does not match its digest" for digest in wanted)
    assert registry_state(used) == before
    assert not (used / STAGE).exists()


@pytest.mark.slow
def test_a_rotten_blob_that_is_there_already_is_found_too(bundle: Path, used: Path) -> None:
    deploy(bundle, used)
    before = registry_state(used)
    data = bytearray(bundle.read_bytes())
    data[data.index(NEW.blobs[1]) + 5] ^= 4
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        deploy(bundle, used)
    assert registry_state(used) == before


def test_a_link_to_another_blob_in_the_bundle_changes_nothing(bundle: Path, used: Path) -> None:
    data = bundle.read_bytes()
    place = data.rindex(str(NEW.top).encode())
    bundle.write_bytes(data[:place] + str(MULTI.top).encode() + data[place + layout.LINK_BYTES :])
    before = registry_state(used)
    with pytest.raises(IntegrityError) as caught:
        deploy(bundle, used)
    assert caught.value.problems[0].startswith(layout.tag_link("app/web", "latest"))
    assert registry_state(used) == before


def test_a_cut_bundle_does_not_even_make_the_root(bundle: Path, tmp_path: Path) -> None:
    os.truncate(bundle, bundle.stat().st_size - 1)
    with pytest.raises(IntegrityError):
        deploy(bundle, tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("inside", ["docker", "docker/registry", "docker/registry/v2"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_the_inside_of_a_storage_is_no_root(bundle: Path, used: Path, inside: str, dry_run: bool) -> None:
    before = snapshot(used)
    with pytest.raises(UsageError, match="seems to be a directory inside a storage"):
        deploy(bundle, used / inside, dry_run=dry_run)
    assert snapshot(used) == before


def test_a_root_that_is_a_file_is_the_users_mistake(bundle: Path, tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    with pytest.raises(UsageError, match="is not a directory"):
        deploy(bundle, tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be created"):
        deploy(bundle, tmp_path / "file/root")


def test_an_empty_bundle_adds_nothing(tmp_path: Path) -> None:
    report = deploy(make_bundle(tmp_path / "release", {}), tmp_path / "root")
    assert report == DeployReport(
        images=0, tags_added=(), tags_replaced=(), tags_kept=(), blobs_added=0, bytes_added=0, mended=0
    )
    assert not (tmp_path / "root/docker").exists()


def test_a_dry_run_tells_what_the_run_then_brings(bundle: Path, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "site", {"app/web:latest": NEW})
    told = deploy(bundle, root, dry_run=True)
    done = deploy(bundle, root)
    assert (told.blobs_added, told.bytes_added) == (done.blobs_added, done.bytes_added)
    assert done.blobs_added == len({*MULTI.blobs, *MULTI.manifests})


def test_nobody_else_reads_or_writes_the_storage_meanwhile(bundle: Path, used: Path) -> None:
    """A gc would remove blobs whose tags are still to come."""
    asked = list[Owner]()

    def files_for(owner: Owner) -> Files:
        with (used / ".regwrap/lock").open("r+b") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        asked.append(owner)
        return living(owner)

    deploy(bundle, used, files_for=files_for)
    assert len(asked) == 1


def test_what_a_killed_run_left_half_in_its_stage_is_in_nobody_s_way(bundle: Path, used: Path) -> None:
    put(used / STAGE / Digest.of(NEW.blobs[1]).hex, b"half")
    deploy(bundle, used)
    assert storage_problems(used) == set()
    assert not (used / STAGE).exists()


def test_a_blob_that_the_site_s_disk_does_not_give_is_mended(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(bundle, tmp_path / "site")
    lose(monkeypatch, tmp_path / "site" / blob_of(MULTI.blobs[0]))
    assert deploy(bundle, tmp_path / "site").mended == 1
    assert storage_problems(tmp_path / "site") == set()
    assert deploy(bundle, tmp_path / "site") == replace(NOTHING, images=2)


def test_a_bundle_that_its_medium_does_not_give_changes_nothing_and_names_each_blob(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = make_storage(tmp_path / "site", THERE)
    before = registry_state(used)
    lose(monkeypatch, bundle, calls=("preadv",))
    with pytest.raises(IntegrityError) as raised:
        deploy(bundle, used)
    assert len(raised.value.problems) > 1
    assert all("cannot be read" in problem and "Input/output error" in problem for problem in raised.value.problems)
    assert registry_state(used) == before
