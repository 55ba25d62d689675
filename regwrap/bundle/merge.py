"""Import images into a storage, from a bundle or any other image set: check all first, blobs go in first, tags last.

The names, the tags that are there already, and the space are checked before a byte is written; each blob is hashed
while it is copied into a stage on the storage's own file system; then `storage.commit` moves all in by rename, and the
release is remembered. Other images stay. Twice is once; killed at any moment, run again is done.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from regwrap.bundle.files import Located
from regwrap.bundle.image_set import ImageSet, damaged
from regwrap.bundle.read import hash_all
from regwrap.bundle.releases import moves_to, release_now, write_release
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.manifest import Descriptor
from regwrap.core.moves import Existing
from regwrap.core.writing import named_on_error, status_of
from regwrap.storage import layout
from regwrap.storage.commit import Additions, Files, Owner, commit
from regwrap.storage.hashing import hash_problem, write_all
from regwrap.storage.lock import locked_storage
from regwrap.storage.own import own_tree
from regwrap.storage.space import need_space
from regwrap.storage.stage import remove_stage, temporary_stage
from regwrap.storage.store import Storage, check_one_file_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.core.moves import TagMove
    from regwrap.storage.tree import Tree

_INODES_PER_BLOB: Final = 3  # directory of the digest, data, now and then a prefix; a link costs two


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """`existing`: what happens to a tag that is another image there. `lock_timeout` in seconds. `checksum` of the
    bundle's file, where that is known, is remembered. `hashed`: hash what a delta requires, not only its size.
    `trust` is asked for the release."""

    existing: Existing
    dry_run: bool
    lock_timeout: float
    checksum: str = ""
    hashed: bool = False
    trust: Trust | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came, or with a dry run would come: `added` were not there, `mended` were there with other bytes (a dry run
    sees other sizes only). Tags in `kept` are other images there and stay."""

    changes: TagChanges
    kept: tuple[TagMove, ...]
    added: tuple[tuple[Digest, int], ...]
    mended: tuple[tuple[Digest, int], ...]


def target_storage(root: Path, options: ImportOptions) -> Storage:
    """The storage that images are imported into; its directory is made. Raises UsageError where there can be none."""
    check_place(root)
    storage = Storage(root)
    if not options.dry_run:
        _prepare_root(storage)
    return storage


def import_image_set(
    image_set: ImageSet,
    storage: Storage,
    step: str,
    options: ImportOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files],
) -> Imported:
    """Import the images into a `target_storage`. `step` is the command's name.

    Raises UsageError (a tag is there and points elsewhere, no storage), IntegrityError, ToolError (no space).
    `files_for` is the seam at which tests let file operations fail.
    """
    contents = image_set.contents
    if options.dry_run:
        _check_tags(image_set, storage, options)
        _check_required(image_set, storage, options, listener)
        there = {digest: storage.blob_size(digest) for digest, _size in contents.blobs}
        missing = {digest for digest, size in there.items() if size is None}
        damaged_there = {digest for digest, size in contents.blobs if there[digest] not in {None, size}}
        return _imported(image_set, storage, missing, damaged_there, options.existing)
    with locked_storage(storage.tree, exclusive=True, timeout=options.lock_timeout, on_wait=listener.log):
        _check_tags(image_set, storage, options)
        _check_required(image_set, storage, options, listener)
        own = own_tree(storage.tree)
        remove_stage(own, step)
        _check_space(contents, storage)
        listener.expect(step, contents.blob_bytes)
        with temporary_stage(own, step) as stage:
            staging = Staging(image_set, storage, stage)
            wrong = _staged(image_set, staging, listener)
            if wrong:
                raise damaged(image_set, wrong)
            imported = _imported(image_set, storage, staging.added, staging.mended, options.existing)
            files = files_for(Owner.of(storage.tree))
            additions = staging.additions({move.image for move in imported.kept})
            commit(storage.tree, additions, stage=stage, files=files, listener=listener)
            write_release(storage.tree, release_now(contents.whole, options.checksum), stage=stage, files=files)
    return imported


def _staged(image_set: ImageSet, staging: Staging, listener: Listener) -> dict[Digest, str]:
    """Every blob of the image set is hashed, and staged where it is needed; those of other bytes, and those that cannot
    be read, with why."""
    if image_set.stage_blobs is not None:
        return dict.fromkeys(image_set.stage_blobs(staging, listener.on_bytes), "")
    return hash_all(staging.stage_blob, image_set.contents.blobs, listener.on_bytes)


def _check_tags(image_set: ImageSet, storage: Storage, options: ImportOptions) -> None:
    if options.existing is Existing.FAIL:
        refuse_moves(_tag_changes(image_set.contents, storage).replaced, f"{storage.root}", image_set.name)


def _check_required(image_set: ImageSet, storage: Storage, options: ImportOptions, listener: Listener) -> None:
    """Raises IntegrityError where the storage has other bytes for a blob that a delta requires, or none any more."""
    sizes = [(blob.digest, blob.size) for blob in image_set.contents.required]
    if not sizes:
        return
    if options.hashed:
        listener.expect("hash", image_set.contents.required_bytes)

    def is_there(digest: Digest) -> bool:
        is_valid = storage.blob_size(digest) == image_set.contents.sizes[digest]
        return is_valid and (not options.hashed or storage.hash_blob(digest) == digest)

    wrong = hash_all(is_there, sizes, listener.on_bytes if options.hashed else lambda _bytes: None)
    if wrong:
        raise IntegrityError(
            f"{storage.root} has {counted(len(wrong), 'damaged blob')} that {image_set.name} requires;"
            " nothing was changed",
            problems=tuple(hash_problem(d, layout.blob_path(d), why) for d, why in wrong.items()),
            hint="deploy the whole bundle, or that of the release they belong to: it repairs them",
        )


def _imported(
    image_set: ImageSet, storage: Storage, added: set[Digest], mended: set[Digest], existing: Existing
) -> Imported:
    blobs, changes = image_set.contents.blobs, _tag_changes(image_set.contents, storage)
    skipping = existing is Existing.SKIP
    return Imported(
        changes=replace(changes, replaced=()) if skipping else changes,
        kept=changes.replaced if skipping else (),
        added=tuple(blob for blob in blobs if blob[0] in added),
        mended=tuple(blob for blob in blobs if blob[0] in mended),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TagChanges:
    """Tags that the storage lacks, as `repository:tag`, and those that point to another image there."""

    added: tuple[str, ...]
    replaced: tuple[TagMove, ...]


def _tag_changes(contents: BundleContents, storage: Storage) -> TagChanges:
    moves = moves_to(storage, contents)
    return TagChanges(
        added=tuple(move.image for move in moves if move.old is None),
        replaced=tuple(move for move in moves if move.old is not None),
    )


def refuse_moves(moves: Sequence[TagMove], place: str, origin: str) -> None:
    """Raises UsageError where a tag of `place` would move to an image of `origin`, where the images come from."""
    if moves:
        lines = "\n".join(f"{move.image}: is {move.old}, {origin} has {move.new}" for move in moves)
        raise UsageError(
            f"{counted(len(moves), f'tag in {place} points', f'tags in {place} point')} to another image;"
            " nothing was changed",
            detail=lines,
            hint=f"--existing replace (or --replace-tags) moves them to those of {origin}; --existing skip leaves them",
        )


ROOT_HINT: Final = "give the registry's root directory, which contains docker/registry/v2"


def check_place(root: Path) -> None:
    """Raises UsageError for a directory below a storage's root."""
    inside = ("registry/v2", "v2", "blobs/sha256", "repositories")  # of docker, of docker/registry, of v2
    if not (root / layout.V2).is_dir() and any((root / part).is_dir() for part in inside):
        raise UsageError(
            f"{root} seems to be a directory inside a storage",
            hint=ROOT_HINT,
        )


def _prepare_root(storage: Storage) -> None:
    """Makes the directory. Raises UsageError where it cannot be a storage's root."""
    root, tree = storage.root, storage.tree
    try:
        root.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{root} is not a directory") from None
    except OSError as error:
        raise UsageError(f"{root} cannot be created: {error.strerror}") from error
    parts = (layout.V2, f"{layout.V2}/blobs", layout.REPOSITORIES)
    check_one_file_system(tree, parts, "files are moved into place by rename")


def _check_space(contents: BundleContents, storage: Storage) -> None:
    """Raises ToolError where the blobs that the storage lacks, or their files, have no room."""
    missing = [size for digest, size in contents.blobs if storage.blob_size(digest) is None]
    links = len(contents.members) - len(contents.blobs)
    need_space(
        storage.root,
        at=storage.tree.descriptor,
        needed=sum(missing) * 105 // 100,
        files=_INODES_PER_BLOB * len(missing) + 2 * links if missing else 0,
        hint="free space there; nothing was changed",
    )


@dataclass(frozen=True, slots=True)
class Staging:
    """Copies of what the storage lacks, `added`, or has with other bytes, `mended`. As a base it has all that will be
    in the storage."""

    image_set: ImageSet
    storage: Storage
    stage: Tree
    added: set[Digest] = field(default_factory=set)
    mended: set[Digest] = field(default_factory=set)

    def stage_blob(self, digest: Digest) -> bool:
        """Hash the blob, whether it is needed or not; whether it is valid. Safe from several threads."""
        if self.has(digest):
            return self.image_set.copy(digest)
        with self.new_file(digest) as out:
            return self.image_set.copy(digest, lambda piece: write_all(out, piece))

    def has(self, digest: Digest) -> bool:
        """Whether the storage has the blob, with the right bytes."""
        blob = Descriptor(media_type="", digest=digest, size=self.image_set.contents.sizes[digest])
        return self.storage.is_valid(blob, hashed=True)

    @contextmanager
    def new_file(self, digest: Digest) -> Iterator[BinaryIO]:
        """A file for the blob, which counts when the block ends."""
        with named_on_error(os.fdopen(self.stage.create(digest.hex), "wb", buffering=0)) as out:
            yield out
        (self.added if self.storage.blob_size(digest) is None else self.mended).add(digest)

    @property
    def name(self) -> str:
        return f"{self.storage.root}"

    def blob_size(self, digest: Digest) -> int | None:
        if digest in self.added or digest in self.mended:
            return self.stage.size(digest.hex)
        return self.storage.blob_size(digest)

    @contextmanager
    def opened(self, digest: Digest) -> Iterator[tuple[int, Located]]:
        staged = digest in self.added or digest in self.mended
        descriptor = self.stage.open(digest.hex) if staged else self.storage.open_blob(digest)
        try:
            yield descriptor, Located(0, status_of(descriptor).st_size)
        finally:
            os.close(descriptor)

    def additions(self, kept: set[str]) -> Additions:
        """All links of the images, the blobs that are staged for them, and all tags but those that are kept."""
        contents = self.image_set.contents
        return Additions(
            blobs=tuple((digest, digest.hex) for digest in sorted(self.added | self.mended)),
            layers=tuple((r.name, digest) for r in contents.repositories for digest in r.layers),
            revisions=tuple((r.name, digest) for r in contents.repositories for digest in r.manifests),
            tags=tuple((i.repository, i.tag, i.digest) for i in contents.images if i.name not in kept),
        )
