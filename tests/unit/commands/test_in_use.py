"""Who writes into a storage waits for whoever reads it, and the other way round; who only looks does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.releases import read_releases
from regwrap.commands.deploy import deploy_bundle
from regwrap.commands.gc import GcOptions, collect_garbage
from regwrap.commands.releases import adopt_release
from regwrap.commands.rollback import RollbackOptions, rollback
from regwrap.core.errors import UsageError
from regwrap.core.listener import Silent
from regwrap.core.moves import Existing
from regwrap.storage.gc import Keep
from regwrap.storage.lock import locked_storage
from regwrap.storage.store import Storage
from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import Tree
from tests.builders import add_untagged, make_image, make_storage
from tests.bundles import make_bundle

ONE, TWO = make_image("one"), make_image("two")


def ignore(_what: object) -> None:
    pass


def gc(root: Path, *, dry_run: bool = False) -> None:
    options = GcOptions(dry_run=dry_run, offline=True, lock_timeout=0)
    collect_garbage(root, Keep(names=None, last=None), options, Silent(), RealDisk())


def deploy(bundle: Path, root: Path) -> None:
    deploy_bundle(bundle, root, ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0), Silent())


@contextmanager
def refused_while_in_use(root: Path, *, exclusive: bool) -> Iterator[None]:
    with (
        locked_storage(Tree(root), exclusive=exclusive, timeout=0, on_wait=ignore),
        pytest.raises(UsageError, match="in use"),
    ):
        yield


def test_gc_removes_nothing_while_somebody_reads(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    add_untagged(root, "a", TWO)
    with locked_storage(Tree(root), exclusive=False, timeout=0, on_wait=ignore):
        gc(root, dry_run=True)
        with pytest.raises(UsageError, match="in use"):
            gc(root)
        assert Storage(root).blob_size(TWO.top) is not None
    gc(root)
    assert Storage(root).blob_size(TWO.top) is None


def test_a_dry_run_of_gc_waits_for_who_writes(tmp_path: Path) -> None:
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    with refused_while_in_use(root, exclusive=True):
        gc(root, dry_run=True)


@pytest.mark.parametrize("exclusive", [False, True])
def test_nothing_is_deployed_into_a_storage_that_is_in_use(tmp_path: Path, *, exclusive: bool) -> None:
    bundle = make_bundle(tmp_path / "release", {"a:1": TWO})
    root = make_storage(tmp_path / "root", {"b:1": ONE})
    with refused_while_in_use(root, exclusive=exclusive):
        deploy(bundle, root)
    assert Storage(root).blob_size(TWO.top) is None


@pytest.mark.parametrize("exclusive", [False, True])
def test_no_tag_goes_back_while_the_storage_is_in_use(tmp_path: Path, *, exclusive: bool) -> None:
    bundle = make_bundle(tmp_path / "release", {"a:1": TWO}, "first")
    root = tmp_path / "root"
    deploy(bundle, root)
    make_storage(root, {"a:1": ONE})
    options = RollbackOptions(dry_run=False, lock_timeout=0)
    with refused_while_in_use(root, exclusive=exclusive):
        rollback(root, "first", options, Silent())
    assert Storage(root).resolve("a", "1") == ONE.top
    rollback(root, "first", options, Silent())
    assert Storage(root).resolve("a", "1") == TWO.top


@pytest.mark.parametrize("exclusive", [False, True])
def test_no_release_is_noted_while_the_storage_is_in_use(tmp_path: Path, *, exclusive: bool) -> None:
    """A gc in the meantime would not know that its images are to stay."""
    bundle = make_bundle(tmp_path / "release", {"a:1": ONE})
    root = make_storage(tmp_path / "root", {"a:1": ONE})
    with refused_while_in_use(root, exclusive=exclusive):
        adopt_release(bundle, root, lock_timeout=0, listener=Silent())
    assert read_releases(Tree(root)).releases == ()
