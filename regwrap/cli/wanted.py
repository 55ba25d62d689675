"""The images of a command: a list by its path, what its lock says of it, or a release that stands for one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.bundle.as_list import read_listing
from regwrap.core.counts import counted
from regwrap.lists.lock import lock_path
from regwrap.lists.wanted import Wanted

if TYPE_CHECKING:
    from regwrap.config.load import Config
    from regwrap.lists.imagelist import ImageList
    from regwrap.report.progress import Progress


def wanted_of(images_list: str, settings: Config, progress: Progress) -> Wanted:
    """The list, or the release that stands for one, and the rules; what is to be said of the list is told."""
    images = read_listing(images_list, sys.stdin.buffer, settings.rewrite)
    wanted = Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite)
    for note in wanted.images.notes:
        progress.log(f"note: {note}")
    if not wanted.images.entries:
        progress.log(f"note: {wanted.images.name} lists no images")
    return wanted


def images_of(wanted: Wanted, progress: Progress, lock: Path | None = None) -> ImageList:
    """The images of the run: the list, or what its lock says of it."""
    images = wanted.under(lock)
    if lock is not None:
        progress.log(f"{lock}: {counted(len(images.entries), 'image')}, by digest")
    return images


def listed(images_list: str, settings: Config, progress: Progress, lock: Path | None = None) -> ImageList:
    """The images of a list by its path, or what its lock says of it."""
    return images_of(wanted_of(images_list, settings, progress), progress, lock)


def lock_of(images_list: str, file: Path | None, *, locked: bool) -> Path | None:
    return lock_path(images_list, file) if locked or file else None
