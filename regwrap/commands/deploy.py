"""Merge a bundle into a storage: everything is checked first, blobs go in first, tags last.

The bundle's structure, the images' closures, the tags that are there already, and the space are checked before a byte
is written; each blob is hashed while it is extracted into a stage on the storage's own file system; then
`storage.commit` moves all in by rename. Other images stay. Twice is once; killed at any moment, run again is done.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.merge import additions, check_place, check_space, prepare_root, refuse_moves, tag_changes
from regwrap.bundle.read import Bundle, Located, chunks_of, map_members, opened_bundle, structure_problems
from regwrap.core.errors import IntegrityError
from regwrap.core.model import Descriptor, Digest
from regwrap.storage.commit import Files, Owner, RealFiles, commit
from regwrap.storage.lock import OWN_DIR, locked_storage
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """`lock_timeout` in seconds. `on_bytes` is called with the bytes that are done, from several threads."""

    replace_tags: bool
    dry_run: bool
    lock_timeout: float
    on_wait: Callable[[str], None]
    on_bytes: Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """`blobs_added` and `bytes_added` of what was not there; `mended` blobs were there with other bytes."""

    images: int
    tags_added: tuple[str, ...]
    tags_replaced: tuple[str, ...]
    blobs_added: int
    bytes_added: int
    mended: int


def deploy_bundle(
    bundle_path: Path, root: Path, options: DeployOptions, files_for: Callable[[Owner], Files] = RealFiles
) -> DeployReport:
    """Bring the bundle's images into the storage at `root`, made if absent.

    Raises IntegrityError (damaged bundle), UsageError (a tag is there with another digest, no storage), ToolError
    (no space). `files_for` is the seam at which tests let file operations fail.
    """
    with opened_bundle(bundle_path) as bundle:
        problems = structure_problems(bundle)
        if problems:
            raise IntegrityError(f"{bundle_path} does not fit together", problems=tuple(problems))
        check_place(root)
        if options.dry_run:
            return _report(bundle, Storage(root), _Staged())
        prepare_root(root)
        with locked_storage(root, exclusive=True, timeout=options.lock_timeout, on_wait=options.on_wait):
            return _Deployment(bundle, root, options, files_for(Owner.of(root))).run()


@dataclass(slots=True)
class _Staged:
    """What extraction found: blobs that have to be moved in; `added` are new, `mended` replace damaged ones."""

    blobs: tuple[tuple[Digest, Path], ...] = ()
    added: int = 0
    bytes: int = 0
    mended: int = 0


@dataclass(frozen=True, slots=True)
class _Deployment:
    bundle: Bundle
    root: Path
    options: DeployOptions
    files: Files

    def run(self) -> DeployReport:
        storage, contents = Storage(self.root), self.bundle.contents
        if not self.options.replace_tags:
            refuse_moves(tag_changes(contents, storage).moved, f"{self.root}", "the bundle")
        stage = self.root / OWN_DIR / "deploy"
        remove_stage(stage)
        check_space(contents, storage)
        with temporary_stage(stage):
            staged = self._extract(storage, stage)
            report = _report(self.bundle, storage, staged)
            commit(self.root, additions(contents, staged.blobs), stage=stage, files=self.files)
        return report

    def _extract(self, storage: Storage, stage: Path) -> _Staged:
        """Hash what is not proved; what the storage does not have, or has damaged, is written to the stage as well."""
        extraction = _Extraction(self.bundle, storage, stage, self.options)
        results = map_members(extraction.take, self.bundle.unproved)
        wrong = tuple(f"{r.member.path}: the bytes are not what bundle.json says" for r in extraction.wrong_in_order())
        if wrong:
            raise IntegrityError(
                f"{self.bundle.path} is damaged; nothing was changed",
                problems=wrong,
                hint="copy the bundle again and compare it with its .sha256",
            )
        moved = [(digest, path) for digest, path in results if path is not None]
        mended = set(extraction.mended)
        sizes = self.bundle.blobs
        return _Staged(
            blobs=tuple(moved),
            added=sum(digest not in mended for digest, _ in moved),
            bytes=sum(sizes[digest].member.size for digest, _ in moved if digest not in mended),
            mended=len(mended),
        )


class _Extraction:
    """Hash and write one member after the other, from several threads."""

    def __init__(self, bundle: Bundle, storage: Storage, stage: Path, options: DeployOptions) -> None:
        self.bundle = bundle
        self.storage = storage
        self.stage = stage
        self.options = options
        self.wrong: list[Located] = []
        self.mended: list[Digest] = []

    def wrong_in_order(self) -> list[Located]:
        return sorted(self.wrong, key=lambda located: located.offset)

    def take(self, located: Located) -> tuple[Digest, Path | None]:
        """The staged file of a blob that the storage lacks; None where nothing is to be moved in."""
        member = located.member
        if member.link is not None or self._is_there(located):
            right, path = self.bundle.is_right(located), None
        else:
            path = self.stage / member.digest.hex
            right = self._write(located, path)
        if not right:
            self.wrong.append(located)
        self.options.on_bytes(member.size)
        return member.digest, path

    def _is_there(self, located: Located) -> bool:
        digest, size = located.member.digest, located.member.size
        there = self.storage.blob_size(digest)
        if there is None:
            return False
        if self.storage.is_sound(Descriptor(media_type="", digest=digest, size=size), hashed=True):
            return True
        self.mended.append(digest)
        return False

    def _write(self, located: Located, path: Path) -> bool:
        state = hashlib.sha256()
        with path.open("wb", buffering=0) as file:
            for chunk in chunks_of(self.bundle.descriptor, located):
                state.update(chunk)
                file.write(chunk)
        return state.hexdigest() == located.member.digest.hex


def _report(bundle: Bundle, storage: Storage, staged: _Staged) -> DeployReport:
    changes = tag_changes(bundle.contents, storage)
    return DeployReport(
        images=len(bundle.contents.images),
        tags_added=changes.added,
        tags_replaced=changes.replaced,
        blobs_added=staged.added,
        bytes_added=staged.bytes,
        mended=staged.mended,
    )
