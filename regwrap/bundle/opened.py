"""Open what a user names: a bundle's file or a storage's directory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from regwrap.bundle.by_repository import BundleContents, Contents, StorageContents
from regwrap.bundle.examine import verify_storage
from regwrap.bundle.found import history_stock, storage_stock
from regwrap.bundle.read import hash_problems, opened_bundle, structure_problems
from regwrap.bundle.stock import Stock, bundle_stock
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.storage import layout
from regwrap.storage.lock import locked_storage
from regwrap.storage.store import Storage, real_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def opened_stock(path: Path, *, lock_timeout: float, on_wait: Callable[[str], None]) -> Iterator[Stock]:
    """The stock for the block; a storage is locked (shared) as long. Raises UsageError, IntegrityError."""
    if not path.is_dir():
        with bundle_stock(path) as stock:
            yield stock
        return
    root = read_root(path)
    with locked_storage(root, exclusive=False, timeout=lock_timeout, on_wait=on_wait, untouched=True):
        yield storage_stock(Storage(root))


@contextmanager
def opened_history(path: Path, *, lock_timeout: float, on_wait: Callable[[str], None]) -> Iterator[Stock]:
    """The same for a storage without its images."""
    root = read_root(path)
    with locked_storage(root, exclusive=False, timeout=lock_timeout, on_wait=on_wait, untouched=True):
        yield history_stock(Storage(root))


def read_root(path: Path) -> Path:
    """The root of a storage that is only read. Raises UsageError for any other directory."""
    root = real_root(path)
    if not (root / layout.V2).is_dir():
        raise UsageError(
            f"{path} is no registry's storage: it has no {layout.V2}",
            hint="give a bundle, or the registry's root directory (rootdirectory in its configuration)",
        )
    return root


@contextmanager
def opened_contents(
    path: Path, *, hashed: bool, expect: Callable[[str, int], None], on_bytes: Callable[[int], None]
) -> Iterator[Contents]:
    """A bundle whose structure is right, or a storage, for the block. Raises UsageError and IntegrityError."""
    if path.is_dir():
        root = real_root(path)
        if not (root / "docker/registry/v2").is_dir():
            raise UsageError(f"{path} is no storage: it has no docker/registry/v2", hint="name a registry's root")
        if hashed:
            _check(path, verify_storage(root, None, on_bytes).problems)
        yield StorageContents(storage=Storage(root))
        return
    with opened_bundle(path) as bundle:
        _check(path, tuple(structure_problems(bundle)))
        if hashed:
            expect("verify", bundle.contents.blob_bytes)
            _check(path, tuple(hash_problems(bundle, on_bytes)))
        yield BundleContents(bundle=bundle)


def _check(path: Path, problems: tuple[str, ...]) -> None:
    if problems:
        raise IntegrityError(f"{path} is damaged", problems=problems, hint="copy the bundle or make it again")
