"""Go back to a release that the site remembers, or forward again: look at every image, then move the tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.releases import chosen_release, moves_to, read_releases, refuse_missing
from regwrap.storage.commit import Additions, Files, Owner, RealFiles, commit
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import own_tree
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import need_storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.moves import TagMove
    from regwrap.storage.tree import Tree

_STAGE: Final = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackOptions:
    """`lock_timeout` in seconds. `for_good`: root is the storage's owner until the process ends."""

    dry_run: bool
    lock_timeout: float
    for_good: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackReport:
    """`moved`: the tags that were another image, or none; with `dry_run` those that would move."""

    path: Path
    name: str
    id: str
    images: int
    moved: tuple[TagMove, ...]
    dry_run: bool
    notes: tuple[str, ...]


def rollback(
    root: Path,
    wanted: str,
    options: RollbackOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files] = RealFiles,
) -> RollbackReport:
    """Make the tags of the release `wanted`, a name or an id, what it says. Tags of other releases stay.

    Raises UsageError where the site does not remember it, and ImagesFailedError where something of it is missing:
    nothing was changed then. `files_for` is the seam at which tests let file operations fail.
    """
    storage, dry_run = need_storage(root), options.dry_run
    if options.for_good and not dry_run:
        storage.tree.become_owner()
    with locked_storage(
        storage.tree, exclusive=not dry_run, timeout=options.lock_timeout, on_wait=listener.log, untouched=dry_run
    ):
        found = read_releases(storage.tree, listener)
        release = chosen_release(found, wanted, root)
        contents = release.contents
        hint = "deploy the bundle of that release: it adds what is missing and moves the tags"
        refuse_missing(storage, contents, release.label, hint=hint, listener=listener)
        moved = moves_to(storage, contents)
        if not dry_run:
            tags = tuple((image.repository, image.tag, image.digest) for image in contents.images)
            _commit_tags(storage.tree, Additions(tags=tags), files_for(Owner.of(storage.tree)), listener)
    return RollbackReport(
        path=root,
        name=contents.name,
        id=str(contents.id),
        images=len(contents.images),
        moved=moved,
        dry_run=dry_run,
        notes=found.notes,
    )


def _commit_tags(tree: Tree, tags: Additions, files: Files, listener: Listener) -> None:
    own = own_tree(tree)
    remove_stage(own, _STAGE)
    with temporary_stage(own, _STAGE) as stage:
        commit(tree, tags, stage=stage, files=files, listener=listener)
