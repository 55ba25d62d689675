"""Who owns a storage may swap what he likes in it at any moment: nothing outside is written, read or removed."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.bundle.examine import verify_storage
from regwrap.bundle.merge import ImportOptions
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.gc import GcOptions, collect_garbage
from regwrap.core.errors import RegwrapError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.moves import Existing
from regwrap.storage import layout
from regwrap.storage.commit import Owner, RealFiles
from regwrap.storage.gc import Keep
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import OWN_DIR, is_own, mark_own, own_tree
from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import LinkedDirectoryError, Tree
from tests.builders import make_image, make_storage, open_below, put, snapshot
from tests.bundles import bundle_image_set, make_bundle

ONE, TWO = make_image("one"), make_image("two")
OPTIONS = ImportOptions(existing=Existing.REPLACE, dry_run=False, lock_timeout=0)
# what the owner puts a link in the place of
PLACES = [
    "docker",
    f"{layout.V2}/blobs",
    layout.BLOBS,
    f"{layout.BLOBS}/{ONE.top.hex[:2]}",
    layout.REPOSITORIES,
    f"{layout.REPOSITORIES}/team",
    f"{layout.REPOSITORIES}/team/app/_manifests",
    f"{layout.REPOSITORIES}/team/app/_manifests/tags",
    f"{layout.REPOSITORIES}/team/app/_layers/sha256",
    f"{OWN_DIR}/deploy",
    f"{OWN_DIR}/gc",
    OWN_DIR,
]


@dataclass
class Swapping:
    """The owner: just before operation `at` he puts a link to `outside` in a place."""

    root: Path
    outside: Path
    place: str
    at: int
    count: int = field(default=0)

    def step(self) -> None:
        self.count += 1
        if self.count == self.at:
            path = self.root / self.place
            with suppress(FileNotFoundError):
                path.rename(path.with_name(f"{path.name}.away"))
            with suppress(FileNotFoundError):
                path.symlink_to(self.outside)


@dataclass(frozen=True)
class SwappingFiles(RealFiles):
    swapping: Swapping

    def make_directory(self, tree: Tree, name: str) -> None:
        self.swapping.step()
        super().make_directory(tree, name)

    def write(self, tree: Tree, name: str, data: bytes) -> None:
        self.swapping.step()
        super().write(tree, name, data)

    def adopt(self, tree: Tree, name: str) -> None:
        self.swapping.step()
        super().adopt(tree, name)

    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None:
        self.swapping.step()
        super().rename(stage, old, tree, new)

    def sync(self, tree: Tree) -> None:
        self.swapping.step()
        assert tree.descriptor  # the disk itself is not waited for


@dataclass(frozen=True)
class SwappingDisk(RealDisk):
    swapping: Swapping

    def rename(self, tree: Tree, old: str, trash: Tree, new: str) -> None:
        self.swapping.step()
        super().rename(tree, old, trash, new)

    def empty_directory(self, tree: Tree, name: str, file: str) -> bool:
        """Half of them in two steps, so that a swap comes between them as well."""
        self.swapping.step()
        if self.swapping.count % 2:
            return super().empty_directory(tree, name, file)
        self.remove_file(tree, f"{name}/{file}")
        return self.remove_directory(tree, name)

    def remove_file(self, tree: Tree, name: str) -> None:
        self.swapping.step()
        super().remove_file(tree, name)

    def remove_directory(self, tree: Tree, name: str) -> bool:
        self.swapping.step()
        return super().remove_directory(tree, name)

    def remove_tree(self, tree: Tree, name: str) -> None:
        self.swapping.step()
        super().remove_tree(tree, name)

    def sync(self, tree: Tree) -> None:
        self.swapping.step()
        assert tree.descriptor  # the disk itself is not waited for


def make_outside(tmp_path: Path) -> Path:
    """What is not the storage, and looks as if it were: each name that a step may come by has something precious."""
    outside = tmp_path / "outside"
    make_storage(outside / "docker", {"team/app:v1": TWO})
    for name in ("deploy", "gc", "import", "sync", "team", "app", "sha256", "tags", "registry", "0"):
        put(outside / name / "precious", b"x")
    (outside / "empty").mkdir(mode=0o700)
    return outside


def rounds(place: str, last: int) -> Iterator[int]:
    """Every operation for two places; for the others, which fail the same way, some of them."""
    yield from range(1, last + 1, 1 if place in {layout.REPOSITORIES, OWN_DIR} else 7)


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", PLACES)
def test_a_deploy_that_is_swapped_under_writes_nothing_outside(tmp_path: Path, place: str) -> None:
    bundle = make_bundle(tmp_path, {"team/app:v1": ONE, "team/other:v1": TWO})
    outside = make_outside(tmp_path)
    before, at, last = snapshot(outside), 1, 1
    for at in rounds(place, 200):
        root = make_storage(tmp_path / f"site-{at}", {"old/o:1": TWO})
        swapping = Swapping(root, outside, place, at)

        def files(owner: Owner, swapping: Swapping = swapping) -> SwappingFiles:
            return SwappingFiles(owner, swapping)

        with suppress(RegwrapError, OSError):
            deploy_bundle(bundle, root, OPTIONS, Silent(), files)
        assert snapshot(outside) == before, f"before operation {at}"
        last = swapping.count
        if last < at:
            break
    assert last > 40


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", PLACES)
def test_a_removal_that_is_swapped_under_removes_nothing_outside(tmp_path: Path, place: str) -> None:
    outside = make_outside(tmp_path)
    before, last = snapshot(outside), 0
    for at in rounds(place, 200):
        root = make_storage(tmp_path / f"site-{at}", {"old/o:1": TWO, "team/app:v1": ONE, "team/app:v2": TWO})
        (root / layout.repository_path("team/app") / "_uploads/1").mkdir(parents=True)
        swapping = Swapping(root, outside, place, at)
        keep = Keep(names=frozenset({"old/o:1"}), last=None)
        options = GcOptions(dry_run=False, offline=True, lock_timeout=0)
        with suppress(RegwrapError, OSError):
            collect_garbage(root, keep, options, Silent(), SwappingDisk(swapping))
        assert snapshot(outside) == before, f"before operation {at}"
        last = swapping.count
        if last < at:
            break
    assert last > 15


@pytest.mark.parametrize("place", PLACES[:9])
def test_a_link_that_is_there_already_is_refused_and_verify_names_it(tmp_path: Path, place: str) -> None:
    bundle, outside = make_bundle(tmp_path, {"team/app:v1": ONE}), make_outside(tmp_path)
    root = make_storage(tmp_path / "site", {"team/app:v0": TWO})
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    if (root / place).exists():
        (root / place).rename(tmp_path / "moved")
    (root / place).symlink_to(tmp_path / "moved" if (tmp_path / "moved").exists() else outside)
    before = snapshot(tmp_path / "moved") if (tmp_path / "moved").exists() else {}, snapshot(outside)
    with pytest.raises(LinkedDirectoryError, match=f"{place} is a symbolic link"):
        deploy_bundle(bundle, root, OPTIONS, Silent())
    problems = verify_storage(root, None, SILENT).problems
    assert [line.partition(" ")[0] for line in problems] == [place]
    assert (snapshot(tmp_path / "moved") if (tmp_path / "moved").exists() else {}, snapshot(outside)) == before


def test_a_link_in_the_place_of_a_blob_s_own_directory_is_named(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "site", {"team/app:v0": TWO})
    directory = (root / layout.blob_path(TWO.top)).parent
    directory.rename(tmp_path / "moved")
    directory.symlink_to(tmp_path / "moved")
    problems = verify_storage(root, None, SILENT).problems
    assert f"{directory.relative_to(root)}" in {line.partition(" ")[0] for line in problems}


def test_a_hard_link_in_the_stage_is_not_given_away(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", b"root's")
    victim.chmod(0o600)
    tree = Tree(tmp_path)
    os.link(victim, tmp_path / "staged")
    put(tmp_path / "alone", b"a blob")
    with pytest.raises(RegwrapError, match="has another name"):
        RealFiles(Owner.of(tree)).adopt(tree, "staged")
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    RealFiles(Owner.of(tree)).adopt(tree, "alone")
    assert open_below(tmp_path) == [f"{tmp_path}"], "thousands of blobs are more than a process may have open"


@pytest.mark.parametrize("kind", ["link", "file", "writable"])
def test_an_own_directory_that_is_not_ours_is_refused_and_said_what_to_do(tmp_path: Path, kind: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "opt/deploy").mkdir(parents=True)
    own = tmp_path / "root" / OWN_DIR
    if kind == "link":
        own.symlink_to(tmp_path / "opt")
    elif kind == "file":
        put(own, b"")
    else:
        own.mkdir()
        own.chmod(0o775)
    with (
        pytest.raises(UsageError, match=f"{own} .*regwrap trusts only a directory of its own") as raised,
        locked_storage(Tree(tmp_path / "root"), exclusive=True, timeout=0, on_wait=lambda _text: None),
    ):
        pass
    assert f"rm -r {own}" in raised.value.hint
    assert list((tmp_path / "opt").iterdir()) == [tmp_path / "opt/deploy"]


def test_a_mark_that_is_a_link_makes_no_file(tmp_path: Path) -> None:
    (tmp_path / OWN_DIR).mkdir(mode=0o700)
    (tmp_path / OWN_DIR / "archive").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        mark_own(Tree(tmp_path))
    assert not (tmp_path / "elsewhere").exists()
    assert not is_own(Tree(tmp_path))


def test_roots_own_directory_becomes_the_owners_and_what_was_under_way_goes(tmp_path: Path) -> None:
    """Where we are not root we can be nobody else, and the storage is ours."""
    own = tmp_path / OWN_DIR
    put(own / "lock", b"")
    put(own / "archive", b"")
    put(own / "deploy/half", b"x")
    own.chmod(0o700)
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    tree = own_tree(Tree(tmp_path))
    assert {path.stat().st_uid for path in (own, own / "lock", own / "archive")} == {owner}
    assert tree.stat("deploy") is None or owner != 65534


@pytest.mark.parametrize("names", [(), ("lock",), ("archive",), ("lock", "archive")])
def test_whatever_of_ours_is_there_becomes_the_owners_and_nothing_stays_open(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    own = tmp_path / OWN_DIR
    own.mkdir(mode=0o700)
    for name in names:
        put(own / name, b"")
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    tree = own_tree(Tree(tmp_path))
    assert {path.stat().st_uid for path in (own, *own.iterdir())} == {owner}
    assert open_below(own) == [f"{tree.root}"]


def test_the_mark_is_nobody_else_s_business(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        mark_own(Tree(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / OWN_DIR / "archive").stat().st_mode) == 0o600
    assert is_own(Tree(tmp_path))
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("name", ["lock", "archive"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_that_has_another_name_is_not_given_to_the_owner(
    tmp_path: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    """Root would give away whatever a link leads to."""
    victim, root = put(tmp_path / "victim", b"precious"), tmp_path / "root"
    (root / OWN_DIR).mkdir(mode=0o700, parents=True)
    link(victim, root / OWN_DIR / name)
    os.chown(root, 65534 if os.geteuid() == 0 else os.geteuid(), -1)
    with suppress(OSError):
        own_tree(Tree(root))
    assert victim.stat().st_uid == os.geteuid()


def test_root_works_as_the_owner(tmp_path: Path) -> None:
    """So what is there belongs to him, and what he may not do is not done."""
    bundle, root = make_bundle(tmp_path, {"team/app:v1": ONE}), tmp_path / "site"
    root.mkdir()
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    os.chown(root, owner, owner if os.geteuid() == 0 else -1)
    with bundle_image_set(bundle):
        deploy_bundle(bundle, root, OPTIONS, Silent())
    assert {path.lstat().st_uid for path in root.rglob("*")} == {owner}
    assert os.geteuid() == (0 if owner == 65534 else owner)
    closed = put(tmp_path / "of-root", b"")
    closed.chmod(0o600)
    may = Tree(root).as_owner(os.access, closed, os.R_OK, effective_ids=False)
    assert may or os.geteuid() == 0


def test_what_the_owner_may_not_do_is_told_with_a_way_out(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "site", {"team/app:v1": ONE})
    for path in (root / layout.V2).rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
    bundle = make_bundle(tmp_path, {"team/new:v1": TWO})
    with pytest.raises(PermissionError, match="Permission denied") as raised:
        deploy_bundle(bundle, root, OPTIONS, Silent())
    way_out = f" for uid 65534, who owns {root} (chown -R 65534 {root})" if os.geteuid() == 0 else ""
    assert raised.value.strerror == f"Permission denied{way_out}"
    with pytest.raises(FileNotFoundError) as absent:
        Tree(root).open("absent")
    assert absent.value.strerror == "No such file or directory"
