"""A bundle's file as it appears: written aside, checked, on the disk, then named; and what stands beside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regwrap.bundle.aside import ROOM_HINT, Part, part_file, sync_directory, sync_file
from regwrap.bundle.contents import blob_end
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.write import link_bytes
from regwrap.core.errors import UsageError
from regwrap.core.writing import check_directory, named_on_error
from regwrap.storage.space import need_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.core.listener import Listener


@contextmanager
def published(
    output: Path,
    expected: int,
    write: Callable[[Part], None],
    listener: Listener,
    *,
    is_described: Callable[[Part], bool] | None = None,
) -> Iterator[None]:
    """`write` fills a file of `expected` bytes; `output` is its name when the block ends, and not if that raises. What
    stands beside it stays only where `is_described` says that it is of this very file.

    Raises UsageError, ToolError (no space), IntegrityError.
    """
    check_target(output)
    with part_file(output) as part:  # first, since what a killed run left may be as large
        need_space(output.parent, expected, hint=ROOM_HINT)
        write(part)
        sealed(part, listener)
        yield
        if is_described is None or not is_described(part):
            forget_beside(output)
        part.path.rename(output)
    sync_directory(output.parent)


def sealed(part: Part, listener: Listener) -> None:
    """It is on the disk, and has every member, in order, and nothing else. Raises IntegrityError."""
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(sync_file, part.descriptor, part.path)
        with opened_bundle(part.opened):
            listener.count("write", "bundles on the disk", 1)
            synced.result()
            listener.on_things()


def check_target(output: Path) -> None:
    """Raises UsageError where it cannot be a bundle's file."""
    if output.is_dir():
        raise UsageError(f"{output} is a directory; give a file with -o")
    if output.exists() and not output.is_file():  # /dev/null would be replaced by the bundle
        raise UsageError(f"{output} is not a regular file; give a file with -o")
    check_directory(output)


def append_links(part: Path, contents: BundleContents) -> None:
    """Put the link members behind the blobs, in the place of tar's end blocks, and the end behind them. Nothing is cut
    off first: the file only grows, and to truncate it would wait for the disk."""
    with named_on_error(part.open("r+b")) as file:
        file.seek(blob_end(contents))
        for member in contents.members:
            if member.link is not None:
                file.write(link_bytes(member))
        file.write(bytes(contents.tar_bytes - file.tell()))


def checksum_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.sha256")


def facts_path(output: Path) -> Path:
    """Never `OUTPUT.json`, which says what volumes of that name are."""
    name = output.name.removesuffix(".tar")
    return output.with_name(f"{name}.json" if name != output.name else f"{name}.release.json")


def forget_beside(output: Path) -> None:
    """What stands beside an earlier bundle of this name would lie: before another one gets the name, so that a run
    that is killed between leaves no lie."""
    for beside in (checksum_path(output), facts_path(output)):
        beside.unlink(missing_ok=True)
    forget_parity(output)


def parity_path(bundle: Path) -> Path:
    return bundle.with_name(f"{bundle.name}.par2")


def forget_parity(bundle: Path) -> None:
    """Recovery data of an earlier bundle of this name would repair it into that one."""
    for path in (parity_path(bundle), *bundle.parent.glob(f"{_escaped(bundle.name)}.vol*.par2")):
        path.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
