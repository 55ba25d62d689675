"""An overlay's sides as storages: history below, this release's images above, in merged all blobs and no old image.

History is only read. The upper layer is a storage of its own in the upper directory, complete before anything is
mounted; its blobs may lie in history.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.writing import write_file
from regwrap.storage import layout
from regwrap.storage.store import Storage, need_storage
from regwrap.tools.overlay import Hiding, Overlay, mark_opaque, run_in_overlay

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from regwrap.tools.runner import Runner

_SKELETON: Final = ("", "docker", "docker/registry", layout.V2, f"{layout.V2}/blobs", layout.BLOBS, layout.REPOSITORIES)
_MOUNT_HINT: Final = "mount the whole storage in one place, or use --strategy select"
_REMOVE: Final = 'rm -rf "$1" && mkdir -p "$1"'
_PREFIXES: Final = tuple(f"{layout.BLOBS}/{number:02x}" for number in range(256))


def check_history(root: Path) -> None:
    """Raises UsageError for a storage that shows less, or other things, through an overlay than by itself.

    overlayfs does not see mounts inside its lower side, and writes through absolute symbolic links into what they
    name; both with exit code 0.
    """
    need_storage(root, hint="give the registry's root directory (rootdirectory in its configuration) with --history")
    device = root.stat().st_dev
    for name in (*_SKELETON[1:], *_PREFIXES):
        path = root / name
        with suppress(FileNotFoundError):
            if path.is_symlink():
                raise UsageError(f"{path} is a symbolic link: an overlay cannot follow it", hint=_MOUNT_HINT)
            if path.lstat().st_dev != device:
                raise UsageError(f"{path} is another file system: an overlay would show it empty", hint=_MOUNT_HINT)


def check_place(history: Path, place: Path) -> None:
    """Raises UsageError where one would lie in the other."""
    if place.is_relative_to(history) or history.is_relative_to(place / "upper"):
        raise UsageError(f"{place} is inside the history {history}, which is read-only", hint="give --upper DIR")


def prepare_sides(runner: Runner, overlay: Overlay, links: Path) -> None:
    """Make the skeletons: `links` is the side, upper or one between it and history, in which all repositories of
    history are hidden.

    All directories that a registry will write to are made here: in a user namespace it can write to no other's.
    """
    if overlay.mode.hiding is Hiding.REMOVE:
        run_in_overlay(runner, overlay, _REMOVE, f"{overlay.merged}/{layout.REPOSITORIES}")
    (links / layout.REPOSITORIES).mkdir(parents=True, exist_ok=True)
    if overlay.mode.hiding is Hiding.MARK:
        mark_opaque(links / layout.REPOSITORIES, overlay.mode)


def make_prefixes(upper: Path) -> None:
    """The directories that a registry may write blobs to, for pushes through the mount."""
    for name in _PREFIXES:
        (upper / name).mkdir(parents=True, exist_ok=True)


def link_known_layers(history: Path, links: Path, repositories: Iterable[str]) -> int:
    """Tell a registry on merged which blobs the repositories had: it answers "exists" to a push only where a
    `_layers` link is. Returns how many. Links to what is not there are left out: they would spoil a later push."""
    below, count = Storage(history), 0
    for repository in sorted(set(repositories)):
        for digest in below.layers(repository):
            path = links / layout.layer_link(repository, digest)
            if below.has_layer(repository, digest) and below.blob_size(digest) is not None and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, str(digest))
                count += 1
    return count


def check_merged(merged: Path, expected: set[str]) -> None:
    """Raises IntegrityError where merged shows a repository of history, or lacks one of the list: a kernel that does
    not know a mark ignores it without a word."""
    shown = set(Storage(merged).repositories())
    wrong = sorted(shown ^ expected)
    if wrong:
        what = "still shows" if wrong[0] in shown else "does not show"
        raise IntegrityError(
            f"the overlay {what} {wrong[0]} ({counted(len(wrong), 'repository is', 'repositories are')} invalid)",
            hint="use --strategy select",
        )
