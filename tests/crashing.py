"""A process that dies at the k-th file operation of a commit, or of a removal."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from regwrap.storage.commit import Owner, RealFiles
from regwrap.storage.sweep import RealDisk
from regwrap.storage.tree import Tree
from tests.builders import put


class Died(BaseException):
    """The process is gone."""


def always(files: "DyingFiles") -> Callable[[Owner], "DyingFiles"]:
    """These, whoever the owner is."""
    return lambda _owner: files


@dataclass
class DyingFiles:
    """Lets `left` operations pass; then the process dies, `half` through the operation. Syncs cost nothing here."""

    real: RealFiles
    left: int
    half: bool = False
    done: list[str] = field(default_factory=list)

    def make_directory(self, tree: Tree, name: str) -> None:
        def half() -> None:
            path = tree.root / name
            missing = [p for p in (path, *path.parents) if not p.exists()]
            if missing:
                missing[-1].mkdir(mode=0o700)

        self._step("make_directory", lambda: self.real.make_directory(tree, name), half)

    def write(self, tree: Tree, name: str, data: bytes) -> None:
        def half() -> None:
            put(tree.root / name, data[: len(data) // 2])

        self._step("write", lambda: self.real.write(tree, name, data), half)

    def adopt(self, tree: Tree, name: str) -> None:
        self._step("adopt", lambda: self.real.adopt(tree, name))

    def rename(self, stage: Tree, old: str, tree: Tree, new: str) -> None:
        self._step("rename", lambda: self.real.rename(stage, old, tree, new))

    def sync(self, tree: Tree) -> None:
        self._step("sync", lambda: tree.descriptor)

    def _step(self, kind: str, whole: Callable[[], object], half: Callable[[], object] = lambda: None) -> None:
        if self.left <= 0:
            if self.half and self.left == 0:
                half()
            self.left = -1
            raise Died
        self.left -= 1
        self.done.append(kind)
        whole()


@dataclass
class DyingDisk:
    """The same for a removal; with `error` the operation fails instead. `paths` says in which step each was."""

    real: RealDisk
    left: int
    error: OSError | None = None
    done: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def rename(self, tree: Tree, old: str, trash: Tree, new: str) -> None:
        self._step("rename", tree.shown(old))
        self.real.rename(tree, old, trash, new)

    def empty_directory(self, tree: Tree, name: str, file: str) -> bool:
        """Two steps; between them only the file is gone."""
        path = tree.shown(f"{name}/{file}")
        self._step("remove_file", path)
        if self.left <= 0:
            self.real.remove_file(tree, f"{name}/{file}")
        self._step("remove_directory", path)
        return self.real.empty_directory(tree, name, file)

    def remove_directory(self, tree: Tree, name: str) -> bool:
        self._step("remove_directory", tree.shown(name))
        return self.real.remove_directory(tree, name)

    def remove_tree(self, tree: Tree, name: str) -> None:
        self._step("remove_tree", tree.shown(name))
        self.real.remove_tree(tree, name)

    def sync(self, tree: Tree) -> None:
        self._step("sync", f"{tree.root}")

    def _step(self, kind: str, path: str) -> None:
        if self.left <= 0:
            raise self.error or Died
        self.left -= 1
        self.done.append(kind)
        self.paths.append("sync" if kind == "sync" else _step_of(kind, path))


def _step_of(kind: str, path: str) -> str:
    if kind == "remove_directory" and "/data" not in path and "/link" not in path:
        return "prefix" if len(path.rpartition("/")[2]) == 2 else ""
    parts = {"/index/": "history", "/revisions/": "revision", "/_layers/": "layer", "/blobs/": "blob", "/tags/": "tag"}
    return next((step for part, step in parts.items() if part in path), "")


@contextmanager
def directory_in_memory() -> Iterator[Path]:
    """In memory where there is such a place: crash tests make thousands of files and remove them again."""
    place = "/dev/shm" if "TMPDIR" not in os.environ and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place, prefix="test-regwrap-") as directory:
        yield Path(directory)
