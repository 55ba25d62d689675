"""Write the bundle's file: blobs taken by tar from where they lie, links put behind them.

What is proved are the bytes that were written: threads hash each blob in the output while tar is still writing behind
it, so a rotten archive and a tar that went wrong are found alike. The target appears by rename, complete and synced.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.contents import BUNDLE_JSON
from regwrap.bundle.follow import Following, followed
from regwrap.bundle.output import append_links, published
from regwrap.bundle.select import REPAIR_HINT
from regwrap.core.errors import BrokenBlobError, IntegrityError
from regwrap.core.manifest import Descriptor
from regwrap.core.writing import write_file
from regwrap.storage.hashing import hash_problem
from regwrap.tools.tar import create_tar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from regwrap.bundle.aside import Part
    from regwrap.bundle.select import Selection
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.tools.runner import Runner


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions:
    """`hashed=False` trusts the archive and compares sizes only. `stall`: seconds without progress after which tar
    is ended."""

    scratch: Path
    hashed: bool
    stall: float


@contextmanager
def packed_bundle(
    runner: Runner, selection: Selection, output: Path, options: PackOptions, listener: Listener
) -> Iterator[int]:
    """Write `output`; yields its size in bytes. It gets its name when the block ends, and not if that raises.

    Raises UsageError, ToolError (full disk), BrokenBlobError.
    """
    expected = selection.contents.tar_bytes
    with published(
        output, expected, lambda part: _write(_Packing(runner, selection, part, options, listener)), listener
    ):
        yield expected


@dataclass(frozen=True, slots=True)
class _Packing:
    runner: Runner
    selection: Selection
    part: Part
    options: PackOptions
    listener: Listener


def _write(packing: _Packing) -> None:
    selection, part, scratch = packing.selection, packing.part, packing.options.scratch
    contents = selection.contents
    front = scratch / "front"
    front.mkdir()
    write_file(front / BUNDLE_JSON, contents.to_json())
    members = contents.members
    blobs = [m.path for m in members if m.link is None]
    parts = [(front, [BUNDLE_JSON]), (selection.storage.root, blobs)]
    unread: IntegrityError | None = None
    with followed(Following(contents, part, packing.listener, hashed=packing.options.hashed)) as wrong:
        try:
            create_tar(
                packing.runner,
                part.descriptor,
                [p for p in parts if p[1]],
                scratch=scratch,
                stall=packing.options.stall,
            )
        except IntegrityError as error:
            unread = error
    if wrong:
        why = " ".join(unread.detail.split()) if unread else ""
        raise broken(set(wrong), selection, hashed=packing.options.hashed, unread=why) from unread
    if unread is not None:
        raise unread
    append_links(part.opened, contents)


def broken(suspects: set[Digest], selection: Selection, *, hashed: bool, unread: str = "") -> BrokenBlobError:
    """`unread` says why a program could not read them, where they can be read again by now."""
    # a blob of another size moves all that follow it in the file: named are those that are wrong in the archive
    blobs = (Descriptor(media_type="", digest=digest, size=size) for digest, size in selection.contents.blobs)
    storage = selection.storage
    problems = {b.digest: storage.damage(b, hashed=hashed and b.digest in suspects) for b in blobs}
    damaged = {digest: problem for digest, problem in problems.items() if problem}
    if not damaged:
        damaged = {digest: hash_problem(digest, selection.path(digest), unread) for digest in sorted(suspects)}
    return broken_by(selection, [f"{selection.users[digest]}: {problem}" for digest, problem in damaged.items()])


def broken_by(selection: Selection, problems: Iterable[str]) -> BrokenBlobError:
    return BrokenBlobError(
        f"the archive {selection.storage.root} is damaged; no bundle was written",
        problems=tuple(problems),
        hint=REPAIR_HINT,
    )
