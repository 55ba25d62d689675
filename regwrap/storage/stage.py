"""A run's own directory in a storage, on its file system: what is put in place by rename comes from there."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regwrap.core.interruption import uninterrupted
from regwrap.storage.lock import OWN_DIR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def sync_stage(root: Path) -> Path:
    """Where what is being synced into a storage lies until it is whole."""
    return root / OWN_DIR / "sync"


def remove_stage(stage: Path) -> None:
    """Also a killed run's, with the storage's lock. What cannot be removed stays for the next run. Signals wait."""
    with uninterrupted():
        shutil.rmtree(stage, ignore_errors=True)


@contextmanager
def temporary_stage(stage: Path) -> Iterator[Path]:
    """The directory, made for the block and removed however that ends."""
    try:
        stage.mkdir(parents=True)
        yield stage
    finally:
        try:
            remove_stage(stage)
        except BaseException:  # an interruption before its signals waited; there is only one
            remove_stage(stage)
            raise
