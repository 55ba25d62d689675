"""A run's own directory in a storage, on its file system: what is put in place by rename comes from there."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.interruption import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.storage.tree import Tree

SYNC: Final = "sync"  # where what is being synced into a storage lies until it is whole


def remove_stage(own: Tree, name: str) -> None:
    """Also a killed run's, with the storage's lock. What cannot be removed stays for the next run. Signals wait."""
    with uninterrupted(), suppress(OSError):
        own.remove_all(name)


@contextmanager
def temporary_stage(own: Tree, name: str) -> Iterator[Tree]:
    """The directory, made for the block and removed however that ends."""
    try:
        own.make_directory(name)
        yield own.inner(name)
    finally:
        try:
            remove_stage(own, name)
        except BaseException:  # an interruption before its signals waited; there is only one
            remove_stage(own, name)
            raise
