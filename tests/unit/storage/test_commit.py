"""Crashes and power cuts at every step of a commit: a storage has an image whole or not at all, and old ones stay."""

import itertools
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.commit import Additions, Files, GroupCommit, Owner, RealFiles, commit, put_unordered
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from tests.builders import (
    Image,
    add_newline,
    add_untagged,
    empty,
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
from tests.crashing import Died, DyingFiles, directory_in_memory

OLD, MOVED = make_image("old"), make_image("moved")
NEW = make_multi_image("new", ["linux/amd64"])
WANTED = {"a/b:1": NEW, "old:latest": MOVED}


State = dict[str, tuple[str, int, int, str]]


@dataclass
class RecordingFiles:
    """Does everything but the sync, and remembers the order."""

    real: RealFiles
    steps: list[tuple[str, Path, Path]] = field(default_factory=list)

    def make_directory(self, tree: Tree, name: str) -> None:
        self.real.make_directory(tree, name)

    def write(self, tree: Tree, name: str, data: bytes) -> None:
        self.steps.append(("write", tree.root / name, tree.root / name))
        self.real.write(tree, name, data)

    def adopt(self, tree: Tree, name: str) -> None:
        self.steps.append(("adopt", tree.root / name, tree.root / name))
        self.real.adopt(tree, name)

    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None:
        self.steps.append(("rename", stage.root / old, tree.root / new))
        self.real.rename(stage, old, tree, new)

    def sync(self, tree: Tree) -> None:
        self.steps.append(("sync", tree.root, tree.root))


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory where there is one: the crash tests make thousands of files and remove them again."""
    with directory_in_memory() as directory:
        yield directory


@pytest.fixture(scope="module")
def template(memory: Path) -> Path:
    """Old images, and beside them what a killed registry left: a broken blob and an empty link."""
    root = make_storage(memory / "template" / "root", {"old:1": OLD, "old:latest": OLD})
    broken = put(root / layout.blob_path(Digest.of(NEW.blobs[0])), NEW.blobs[0])
    flip(broken)
    put(root / layout.layer_link("a/b", Digest.of(NEW.blobs[1])), b"")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def copied(template: Path, place: Path) -> Path:
    """Hard links: whatever is changed in place instead of replaced shows in every other copy."""
    return shutil.copytree(template, place / "root", copy_function=os.link)


def staged(root: Path, stage: Path, images: dict[str, Image]) -> Additions:
    """What a run would add: only the blobs that are not valid in the storage, in a fresh stage."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
    blobs: dict[Digest, str] = {}
    for data in (data for image in images.values() for data in (*image.blobs, *image.manifests)):
        digest = Digest.of(data)
        there = root / layout.blob_path(digest)
        if there.is_symlink() or not there.is_file() or there.read_bytes() != data:
            blobs[digest] = put(stage / digest.hex, data).name
    named = [(*split(name), image) for name, image in images.items()]
    return Additions(
        blobs=tuple(blobs.items()),
        layers=tuple((r, Digest.of(blob)) for r, _, image in named for blob in image.blobs),
        revisions=tuple((r, Digest.of(raw)) for r, _, image in named for raw in image.manifests),
        tags=tuple((r, t, image.top) for r, t, image in named),
    )


def split(name: str) -> tuple[str, str]:
    repository, _, tag = name.rpartition(":")
    return repository, tag


def add(root: Path, images: dict[str, Image], files: Files | None = None) -> None:
    stage = root.parent / "stage"
    additions = staged(root, stage, images)
    for path in (stage, *stage.iterdir()):
        os.chown(path, root.stat().st_uid, root.stat().st_gid)
    commit(Tree(root), additions, stage=Tree(stage), files=files or living(root))


def living(root: Path) -> DyingFiles:
    return DyingFiles(RealFiles(Owner.of(Tree(root))), left=10**9)


@dataclass(frozen=True)
class Undisturbed:
    """What a commit without a crash leaves, and the operations it is made of."""

    state: State
    steps: list[str]


@pytest.fixture(scope="module")
def whole(template: Path, memory: Path) -> Undisturbed:
    root = copied(template, memory / "undisturbed")
    files = living(root)
    add(root, WANTED, files)
    return Undisturbed(snapshot(root), files.done)


@pytest.mark.slow
def test_an_undisturbed_commit_brings_all(memory: Path, template: Path, whole: Undisturbed) -> None:
    root = copied(template, memory / "whole")
    assert len(storage_problems(root)) == 1
    add(root, WANTED)
    assert storage_problems(root) == set()
    assert snapshot(root) == whole.state
    storage = Storage(root)
    assert {name: storage.resolve(*split(name)) for name in WANTED} == {n: i.top for n, i in WANTED.items()}
    assert storage.resolve("old", "1") == OLD.top


@pytest.mark.exhaustive
@pytest.mark.parametrize("half", [False, True])
def test_a_crash_at_any_operation_leaves_images_whole_or_absent(
    memory: Path, template: Path, whole: Undisturbed, *, half: bool
) -> None:
    before, problems = snapshot(template), storage_problems(template)
    assert len(whole.steps) > 40
    for k, kind in enumerate(whole.steps):
        if half and kind not in {"write", "make_directory"}:
            continue  # those are done or not
        root = copied(template, memory / f"crash-{half}-{k}")
        with pytest.raises(Died):
            add(root, WANTED, DyingFiles(RealFiles(Owner.of(Tree(root))), left=k, half=half))
        assert storage_problems(root) <= problems, f"after operation {k}"
        assert_old_is_unchanged(root, before)
        add(root, WANTED)
        assert snapshot(root) == whole.state, f"after operation {k} and again"
    assert snapshot(template) == before


def assert_old_is_unchanged(root: Path, before: State) -> None:
    after = snapshot(root)
    free = {layout.tag_link("old", "latest"), *(p for p in before if "a/b/" in p)}
    free.add(layout.blob_path(Digest.of(NEW.blobs[0])))
    assert {p: s for p, s in after.items() if p in before and p not in free} == {
        p: s for p, s in before.items() if p not in free
    }
    assert Storage(root).resolve("old", "latest") in {OLD.top, MOVED.top}


def test_doing_it_again_changes_nothing(memory: Path, template: Path) -> None:
    root = copied(template, memory / "again")
    add(root, WANTED)
    before, files = snapshot(root), RecordingFiles(RealFiles(Owner.of(Tree(root))))
    add(root, WANTED, files)
    assert snapshot(root) == before
    assert [step for step in files.steps if step[0] != "sync"] == []


def rank(path: Path, root: Path) -> int:
    """0: blobs, 1: layer and revision links, 2: tags."""
    name = f"{path.relative_to(root)}"
    if name.startswith(layout.BLOBS):
        return 0
    return 2 if "/_manifests/tags/" in name else 1


def test_nothing_is_renamed_before_it_is_synced_and_tags_come_last(memory: Path, template: Path) -> None:
    root = copied(template, memory / "order")
    files = RecordingFiles(RealFiles(Owner.of(Tree(root))))
    add(root, WANTED, files)
    unsynced: set[Path] = set()
    since_sync: set[int] = set()
    highest = 0
    for kind, old, new in files.steps:
        if kind == "sync":
            unsynced, since_sync = set(), set()
        elif kind == "rename":
            assert old not in unsynced, f"{new} was renamed before it was synced"
            highest = max(highest, rank(new, root))
            assert rank(new, root) == highest, f"{new} comes too late"
            assert since_sync <= {highest}, f"no sync before {new}"
            since_sync.add(highest)
        else:
            unsynced.add(old)
    assert highest == 2
    assert files.steps[-1][0] == "sync"
    renames = [new for kind, _old, new in files.steps if kind == "rename"]
    currents = [n for n, new in enumerate(renames) if new.parent.name == "current"]
    indexes = [n for n, new in enumerate(renames) if "/index/sha256/" in f"{new}"]
    assert max(indexes) < min(currents)


@pytest.mark.exhaustive
def test_a_power_cut_between_two_syncs_leaves_images_whole_or_absent(memory: Path, template: Path) -> None:
    """The kernel may write the renames since the last sync in any order, or only some of them."""
    recorded = copied(template, memory / "recorded")
    files = RecordingFiles(RealFiles(Owner.of(Tree(recorded))))
    add(recorded, WANTED, files)
    problems = storage_problems(template)
    groups = rename_groups(files.steps, recorded)
    assert len(groups) == 3
    numbers = itertools.count()
    for position, group in enumerate(groups):
        durable = list(itertools.chain.from_iterable(groups[:position]))
        for chosen in some_subsets(group):
            root = copied(template, memory / f"cut-{next(numbers)}")
            for name, data in itertools.chain.from_iterable((*durable, *chosen)):
                (root / name).unlink(missing_ok=True)
                put(root / name, data)
            assert storage_problems(root) <= problems


Brought = tuple[tuple[str, bytes], ...]


def rename_groups(steps: list[tuple[str, Path, Path]], root: Path) -> list[list[Brought]]:
    """The renames between two syncs, each as the paths and the bytes it brought: a file, or a new tag's directory."""
    groups: list[list[Brought]] = [[]]
    for kind, _old, new in steps:
        if kind == "rename":
            files = [new] if new.is_file() else sorted(path for path in new.rglob("*") if path.is_file())
            groups[-1].append(tuple((f"{path.relative_to(root)}", path.read_bytes()) for path in files))
        elif kind == "sync":
            groups.append([])
    return [group for group in groups if group]


def some_subsets(group: list[Brought]) -> Iterator[list[Brought]]:
    dice = random.Random(0)
    yield from ([item] for item in group)
    yield from ([other for other in group if other is not item] for item in group)
    yield from (dice.sample(group, len(group) // 2) for _ in range(5))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_and_owner_are_those_of_the_root_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(root, *owner)
    root.chmod(0o2775)
    before = os.umask(umask)
    try:
        add(root, {"a/b:1": NEW})
    finally:
        os.umask(before)
    states = {path: path.lstat() for path in root.rglob("*")}
    assert {stat.filemode(s.st_mode) for s in states.values()} == {"drwxrwsr-x", "-rw-rw-r--"}
    assert {(s.st_uid, s.st_gid) for s in states.values()} == {owner}


def test_a_private_root_gets_private_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    add(root, {"a:1": OLD})
    assert {stat.filemode(path.lstat().st_mode) for path in root.rglob("*")} == {"drwx------", "-rw-------"}


def test_directories_that_are_there_keep_their_modes(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": OLD})
    repository = root / layout.repository_path("a")
    repository.chmod(0o751)
    add(root, {"a:2": NEW})
    assert stat.S_IMODE(repository.stat().st_mode) == 0o751


@pytest.mark.parametrize("damage", [flip, truncate, empty, remove, replace_by_fifo, replace_by_symlink])
def test_a_broken_blob_is_replaced(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    root = make_storage(tmp_path / "root", {"a:1": OLD})
    path = root / layout.blob_path(Digest.of(OLD.blobs[0]))
    damage(path)
    damaged_inode = path.lstat().st_ino if path.exists() else 0
    add(root, {"a:1": OLD})
    assert storage_problems(root) == set()
    assert path.lstat().st_ino != damaged_inode
    elsewhere = path.with_name("data.elsewhere")
    assert not elsewhere.exists() or elsewhere.read_bytes() == OLD.blobs[0]


@pytest.mark.parametrize("damage", [truncate, empty, add_newline, remove, replace_by_fifo, replace_by_symlink])
@pytest.mark.parametrize(
    "link",
    [
        layout.tag_link("a", "1"),
        layout.tag_index_link("a", "1", OLD.top),
        layout.revision_link("a", OLD.top),
        layout.layer_link("a", Digest.of(OLD.blobs[0])),
    ],
)
def test_a_broken_link_is_replaced(tmp_path: Path, damage: Callable[[Path], None], link: str) -> None:
    root = make_storage(tmp_path / "root", {"a:1": OLD})
    whole = (root / link).read_bytes()
    damage(root / link)
    add(root, {"a:1": OLD})
    assert not (root / link).is_symlink()
    assert (root / link).read_bytes() == whole
    assert storage_problems(root) == set()


def test_neither_a_symbolic_nor_a_hard_link_is_written_through(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": OLD, "a:2": OLD})
    victim = put(tmp_path / "victim", str(OLD.top).encode())
    first, second = (root / layout.tag_link("a", tag) for tag in ("1", "2"))
    first.unlink()
    first.symlink_to(victim)
    second.unlink()
    second.hardlink_to(victim)
    add(root, {"a:1": NEW, "a:2": NEW})
    assert victim.read_bytes() == str(OLD.top).encode()
    assert first.read_bytes() == second.read_bytes() == str(NEW.top).encode()


def test_nothing_to_add_writes_nothing(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": OLD})
    before, stage = snapshot(root), tmp_path / "stage"
    commit(Tree(root), Additions(), stage=Tree(stage), files=RealFiles(Owner.of(Tree(root))))
    assert snapshot(root) == before
    assert not stage.exists()


def test_the_real_sync_syncs_and_says_when_it_can_not(tmp_path: Path) -> None:
    add(make_storage(tmp_path / "root", {}), {"a:1": OLD}, RealFiles(Owner.of(Tree(tmp_path))))
    assert storage_problems(tmp_path / "root") == set()
    with pytest.raises(FileNotFoundError):
        RealFiles(Owner.of(Tree(tmp_path))).sync(Tree(tmp_path / "absent"))


# --- several workers, one commit


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def addition(number: int) -> Additions:
    return Additions(tags=(("a", str(number), OLD.top),))


@dataclass
class Workers:
    """Adds number 0 to a group commit, and while that is being written the numbers 1 to 4."""

    write: Callable[[Additions], None]
    outcomes: dict[int, BaseException | None] = field(default_factory=dict)
    written: list[set[str]] = field(default_factory=list)

    def run(self) -> GroupCommit:
        go = threading.Event()

        def write(additions: Additions) -> None:
            self.written.append({tag for _, tag, _ in additions.tags})
            assert go.wait(10)
            self.write(additions)

        group = GroupCommit(write)
        threads = [threading.Thread(target=self._add, args=(group, number)) for number in range(5)]
        threads[0].start()
        until(lambda: len(self.written) == 1)
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(group._waiting) == 4)
        go.set()
        for thread in threads:
            thread.join(10)
        return group

    def _add(self, group: GroupCommit, number: int) -> None:
        try:
            group.add(addition(number))
        except OSError as error:
            self.outcomes[number] = error
        else:
            self.outcomes[number] = None


def test_who_comes_during_a_write_shares_the_next_one() -> None:
    workers = Workers(write=lambda _additions: None)
    workers.run()
    assert workers.written == [{"0"}, {"1", "2", "3", "4"}]
    assert workers.outcomes == dict.fromkeys(range(5))


def test_an_error_reaches_every_waiter_of_its_batch_and_no_other() -> None:
    full = OSError(28, "No space left on device")

    def write(additions: Additions) -> None:
        if len(additions.tags) > 1:
            raise full

    workers = Workers(write=write)
    group = workers.run()
    assert workers.outcomes == {0: None, 1: full, 2: full, 3: full, 4: full}
    group.add(addition(9))
    assert workers.written[-1] == {"9"}


def test_add_returns_only_when_its_additions_are_written(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {})
    for image in (OLD, MOVED, NEW):
        add_untagged(root, "a", image)
    stage = tmp_path / "stage"
    stage.mkdir()
    group = GroupCommit(lambda additions: commit(Tree(root), additions, stage=Tree(stage), files=living(root)))
    lies: list[str] = []

    def work(number: int) -> None:
        for turn, image in enumerate((OLD, MOVED, NEW)):
            tag = f"{number}-{turn}"
            group.add(Additions(tags=(("a", tag, image.top),)))
            if Storage(root).resolve("a", tag) != image.top:
                lies.append(tag)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert lies == []
    assert len(Storage(root).tags("a")) == 24
    assert storage_problems(root) == set()


def test_a_blob_that_two_workers_bring_is_moved_once() -> None:
    merged: list[Additions] = []
    workers_blob = ((OLD.top, "x"),)
    started, go = threading.Event(), threading.Event()

    def write(additions: Additions) -> None:
        merged.append(additions)
        started.set()
        assert go.wait(10)

    group = GroupCommit(write)
    threads = [threading.Thread(target=group.add, args=(Additions(blobs=workers_blob),)) for _ in range(3)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(group._waiting) == 2)
    go.set()
    for thread in threads:
        thread.join(10)
    assert [additions.blobs for additions in merged] == [workers_blob, workers_blob]


def test_what_a_commit_that_failed_had_staged_gets_into_no_other_tag(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "storage", {"old:latest": OLD})
    stage = root / ".regwrap/sync"
    stage.mkdir(parents=True)
    for repository, image in (("a", OLD), ("b", MOVED)):
        add_untagged(root, repository, image)
    files = RealFiles(Owner.of(Tree(root)))
    dying = DyingFiles(files, left=5)  # both links of the tag are staged, and not in place
    with pytest.raises(Died):
        commit(Tree(root), Additions(tags=(("a", "1", OLD.top),)), stage=Tree(stage), files=dying)
    assert list((stage / "links").rglob("link"))
    commit(Tree(root), Additions(tags=(("b", "1", MOVED.top),)), stage=Tree(stage), files=files)
    assert [path.name for path in (root / layout.tag_path("b", "1") / "index/sha256").iterdir()] == [MOVED.top.hex]
    assert storage_problems(root) == set()


def test_an_empty_directory_in_a_file_s_place_is_mended_and_a_full_one_is_named(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "storage", {"old:latest": OLD})
    link = root / layout.revision_link("old", OLD.top)
    remove(link)
    link.mkdir()
    again = Additions(revisions=(("old", OLD.top),))
    stage = root / ".regwrap/sync"
    stage.mkdir(parents=True)
    commit(Tree(root), again, stage=Tree(stage), files=RealFiles(Owner.of(Tree(root))))
    assert storage_problems(root) == set()
    remove(link)
    put(link / "file", b"")
    with pytest.raises(OSError, match="not empty") as caught:
        commit(Tree(root), again, stage=Tree(stage), files=RealFiles(Owner.of(Tree(root))))
    assert caught.value.filename == f"{link}"


def test_what_nobody_reads_before_it_is_complete_is_put_into_two_places_without_a_sync(tmp_path: Path) -> None:
    """Blobs into an upper, links into the directory above it, as a registry makes them: over what is there as well."""
    stage, blobs, links = (tmp_path / name for name in ("stage", "blobs", "links"))
    data = (*NEW.blobs, *NEW.manifests)
    for number, part in enumerate(data):
        put(stage / f"{number}", part)
    links.mkdir()
    blobs.mkdir()
    put(links / layout.tag_link("a/b", "1"), b"sha256:of last month, and longer than what comes").chmod(0o600)
    revisions = tuple(("a/b", Digest.of(raw)) for raw in NEW.manifests)
    additions = Additions(
        blobs=tuple((Digest.of(part), f"{number}") for number, part in enumerate(data)),
        layers=tuple(("a/b", Digest.of(blob)) for blob in NEW.blobs),
        revisions=revisions,
        tags=(("a/b", "1", NEW.top),),
    )
    before = os.umask(0o022)
    try:
        put_unordered(additions, stage=Tree(stage), blobs=Tree(blobs), links=Tree(links))
    finally:
        os.umask(before)
    whole = make_storage(tmp_path / "whole", {"a/b:1": NEW})
    for below in ("blobs", "repositories"):
        made = {"blobs": blobs, "repositories": links}[below] / layout.V2 / below
        assert {p: look[3] for p, look in snapshot(made).items()} == {
            p: look[3] for p, look in snapshot(whole / layout.V2 / below).items()
        }
    assert [path.name for path in stage.iterdir()] == []
    tag = links / layout.tag_index_link("a/b", "1", NEW.top)
    assert (tag.stat().st_mode & 0o777, tag.parent.stat().st_mode & 0o7777) == (0o644, 0o755)
    blob = blobs / layout.blob_path(NEW.top)
    assert blob.parent.stat().st_mode & 0o7777 == 0o755
