"""Open what a user names: a bundle's file or a storage's directory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from regwrap.errors import UsageError
from regwrap.stock.found import history_stock, storage_stock
from regwrap.stock.stock import Stock, bundle_stock
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
