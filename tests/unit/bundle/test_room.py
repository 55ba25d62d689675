"""Whether a storage has room for a bundle, to the byte and to the file, and lies in one piece."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from regwrap.bundle.image_set import ImageSet
from regwrap.bundle.merge import ImportOptions, import_image_set, target_storage
from regwrap.core.errors import ToolError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.moves import Existing
from regwrap.storage.commit import RealFiles
from regwrap.storage.tree import Tree
from tests.builders import make_image, make_storage
from tests.bundles import bundle_image_set, make_bundle

OPTIONS = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0)
IMAGES = {"a:1": make_image("one"), "a:2": make_image("two")}


@pytest.fixture
def image_set(tmp_path: Path) -> Iterator[ImageSet]:
    with bundle_image_set(make_bundle(tmp_path / "release", IMAGES)) as opened:
        yield opened


def deploy(image_set: ImageSet, root: Path) -> None:
    import_image_set(image_set, target_storage(root, OPTIONS), "deploy", OPTIONS, Silent(), RealFiles)


def disk_with(monkeypatch: pytest.MonkeyPatch, **values: int) -> None:
    """The kernel's answer for a disk that has just so much."""
    status = {"f_bavail": 10**9, "f_frsize": 1, "f_blocks": 10**9, "f_files": 10**6, "f_favail": 10**6} | values
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(**status))


def test_space_is_needed_for_every_byte_and_a_twentieth(
    tmp_path: Path, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = image_set.contents.blob_bytes * 105 // 100
    disk_with(monkeypatch, f_bavail=need - 1)
    with pytest.raises(ToolError, match=f"not enough space in .*: {need:,} bytes are needed, {need - 1:,} are free"):
        deploy(image_set, tmp_path / "root")
    assert not list((tmp_path / "root").rglob("data"))
    disk_with(monkeypatch, f_bavail=need // 512, f_frsize=512)
    with pytest.raises(ToolError, match="not enough space"):
        deploy(image_set, tmp_path / "root")
    disk_with(monkeypatch, f_bavail=need)
    deploy(image_set, tmp_path / "root")


def test_files_are_needed_for_every_blob_and_link(
    tmp_path: Path, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = image_set.contents
    need = 3 * len(contents.blobs) + 2 * (len(contents.members) - len(contents.blobs))
    disk_with(monkeypatch, f_favail=need - 1)
    with pytest.raises(ToolError, match=f"not enough inodes in .*: {need} are needed, {need - 1} are free"):
        deploy(image_set, tmp_path / "root")
    disk_with(monkeypatch, f_favail=need)
    deploy(image_set, tmp_path / "root")


@pytest.mark.parametrize("unlimited", [{"f_bavail": 0, "f_blocks": 0}, {"f_favail": 0, "f_files": 0}])
def test_a_file_system_that_names_no_limit_has_none(
    tmp_path: Path, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch, unlimited: dict[str, int]
) -> None:
    disk_with(monkeypatch, **unlimited)
    deploy(image_set, tmp_path / "root")


def test_what_is_there_already_needs_no_room(
    tmp_path: Path, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_with(monkeypatch, f_bavail=0, f_favail=0)
    deploy(image_set, make_storage(tmp_path / "old", IMAGES))


def test_a_part_on_another_file_system_is_refused(
    tmp_path: Path, image_set: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are put in place by rename, which does not reach there."""
    root = make_storage(tmp_path / "root", IMAGES)
    real = Tree.stat

    def stat(tree: Tree, name: str) -> os.stat_result | None:
        status = real(tree, name)
        if status is None or not name.endswith("repositories"):
            return status
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:10]))

    monkeypatch.setattr(Tree, "stat", stat)
    with pytest.raises(UsageError, match="repositories is on another file system"):
        deploy(image_set, root)


def test_nothing_is_brought_into_the_inside_of_a_storage(tmp_path: Path) -> None:
    """Registries would not see it, and the real root would stay as it was."""
    root = make_storage(tmp_path / "root", IMAGES)
    for inside in ("docker", "docker/registry", "docker/registry/v2"):
        with pytest.raises(UsageError, match="seems to be a directory inside a storage"):
            target_storage(root / inside, OPTIONS)
