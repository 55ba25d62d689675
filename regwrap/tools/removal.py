"""Remove a directory, whatever an overlay or a program has left in it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path


def remove_tree(directory: Path) -> None:
    """Remove a directory, also one that held an overlay's sides. Raises OSError where something is left."""
    try:
        shutil.rmtree(directory, onerror=_unless_gone)
    except PermissionError:
        _open_up(directory)
        shutil.rmtree(directory, onerror=_unless_gone)


def _unless_gone(_function: object, _path: object, info: tuple[object, BaseException, object]) -> None:
    """A file that a program has removed itself meanwhile is no reason to leave the rest."""
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def _open_up(directory: Path) -> None:
    """The kernel leaves work/work with mode 000, which stops all but root."""
    for root, names, _files in os.walk(directory):
        for name in names:
            path = f"{root}/{name}"
            mode = os.lstat(path).st_mode
            if stat.S_ISDIR(mode) and mode & stat.S_IRWXU != stat.S_IRWXU:
                Path(path).chmod(stat.S_IRWXU)
