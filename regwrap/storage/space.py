"""Whether what is to be written has room, asked before the first byte of it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.errors import ToolError
from regwrap.core.writing import on_file

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Space:
    """What a file system has for us: bytes, and files that can still be made. None where it sets no limit."""

    bytes: int | None
    files: int | None

    def has(self, needed: int, files: int = 0) -> bool:
        return (self.bytes is None or needed <= self.bytes) and (self.files is None or files <= self.files)


def free_space(path: Path | int) -> Space:
    """Of the file system of a path, or of an open directory. Some say 0 of 0: btrfs of files (statvfs(3), f_files),
    others of blocks."""
    with on_file(path) if isinstance(path, int) else nullcontext():
        status = os.statvfs(path)
    return Space(
        bytes=status.f_bavail * status.f_frsize if status.f_blocks else None,
        files=status.f_favail if status.f_files else None,
    )


def need_space(
    path: Path, needed: int, *, files: int = 0, hint: str = "free space there", at: int | None = None
) -> None:
    """Raises ToolError where so many bytes, or so many new files, have no room on the file system of `path`, or of the
    open directory `at` that it names."""
    free = free_space(path if at is None else at)
    if not free.has(needed):
        raise ToolError(f"not enough space in {path}: {needed:,} bytes are needed, {free.bytes:,} are free", hint=hint)
    if not free.has(0, files):
        raise ToolError(
            f"not enough inodes in {path}: {files:,} are needed, {free.files:,} are free",
            hint="remove files there, or use a file system with more inodes; nothing was changed",
        )
