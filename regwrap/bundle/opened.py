"""Open what a user names: a bundle's file or a storage's directory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.examine import verify_storage
from regwrap.bundle.found import history_stock, storage_stock
from regwrap.bundle.read import hash_all
from regwrap.bundle.stock import Stock, bundle_stock
from regwrap.core.errors import IntegrityError
from regwrap.storage.lock import locked_storage
from regwrap.storage.store import Storage, need_storage, real_root
from regwrap.storage.survey import linked_directories
from regwrap.storage.tree import LinkedDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from regwrap.core.listener import Listener

_HINT: Final = "give a bundle, or the registry's root directory (rootdirectory in its configuration)"


@contextmanager
def opened_stock(path: Path, *, lock_timeout: float, listener: Listener) -> Iterator[Stock]:
    """The stock for the block; a storage is locked (shared) as long. Raises UsageError, IntegrityError."""
    if not path.is_dir():
        with bundle_stock(path) as stock:
            yield stock
        return
    with _read(path, lock_timeout, listener) as storage:
        yield storage_stock(storage)


@contextmanager
def opened_history(path: Path, *, lock_timeout: float, listener: Listener) -> Iterator[Stock]:
    """The same for a storage without its images."""
    with _read(path, lock_timeout, listener) as storage:
        yield history_stock(storage)


@contextmanager
def _read(path: Path, lock_timeout: float, listener: Listener) -> Iterator[Storage]:
    storage = need_storage(real_root(path), hint=_HINT)
    with locked_storage(storage.tree, exclusive=False, timeout=lock_timeout, on_wait=listener.say, untouched=True):
        yield storage


@contextmanager
def opened_contents(path: Path, *, hashed: bool, listener: Listener) -> Iterator[Stock | StorageSource]:
    """A bundle whose structure is valid, or a storage, for the block. Raises UsageError and IntegrityError."""
    if path.is_dir():
        storage = need_storage(real_root(path), hint=_HINT)
        if links := linked_directories(storage):
            raise LinkedDirectoryError(storage.tree.shown(links[0]))
        if hashed:
            _check(path, verify_storage(storage.root, None, listener.on_bytes).problems)
        yield StorageSource(name=f"{storage.root}", storage=storage)
        return
    with bundle_stock(path) as stock:
        if hashed:
            listener.expect("verify", stock.contents.blob_bytes)
            wrong = hash_all(stock.copy, stock.contents.blobs, listener.on_bytes)
            _check(path, tuple(f"blob {digest}: the bytes have another digest" for digest in wrong))
        yield stock


def _check(path: Path, problems: tuple[str, ...]) -> None:
    if problems:
        raise IntegrityError(f"{path} is damaged", problems=problems, hint="copy or build the bundle again")
