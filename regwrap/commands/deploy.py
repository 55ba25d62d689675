"""Import a bundle into a storage."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from regwrap.bundle.base import StorageBase, based
from regwrap.bundle.image_set import ImageSet, valid_image_set
from regwrap.bundle.incoming import PIPE, IncomingBundle, incoming_bundle
from regwrap.bundle.merge import ImportOptions, check_place, import_image_set, target_storage
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import known_checksum
from regwrap.core.errors import UsageError
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.hashing import write_all
from regwrap.storage.store import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from regwrap.bundle.files import Located
    from regwrap.bundle.merge import Staging
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.core.moves import TagMove

_PIPED: Final = Path("-")
_BASE_HINT: Final = (
    "deploy the release that has them first, or the whole bundle; or send a receipt of this site (regwrap verify DIR"
    " --receipt FILE), for a delta since that (regwrap package --since FILE)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployReport:
    """`blobs_added` and `bytes_added` of what was not there; `mended` blobs were there with other bytes. `tags_kept`
    are other images there, and stay. `name` and `id` are the release's."""

    images: int
    tags_added: tuple[str, ...]
    tags_replaced: tuple[TagMove, ...]
    tags_kept: tuple[TagMove, ...]
    blobs_added: int
    bytes_added: int
    mended: int
    name: str = field(default="", compare=False)
    id: str = field(default="", compare=False)


def deploy_bundle(
    bundle: Path,
    root: Path,
    options: ImportOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files] = RealFiles,
    *,
    for_good: bool = False,
) -> DeployReport:
    """Import the bundle's images into the storage at `root`, made if absent. What a delta requires has to be there.
    Raises what `import_image_set` does.

    `for_good`: root opens the bundle, which may be his alone, and is the storage's owner until the process ends.
    """
    options = replace(options, checksum=known_checksum(bundle))
    check_place(root)
    with opened_bundle(bundle, options.trust, listener) as opened:
        image_set = valid_image_set(based(opened, (StorageBase(Storage(root)),), hint=_BASE_HINT))
        return _deployed(image_set, root, options, listener, files_for, for_good=for_good)


def deploy_incoming(
    file: IO[bytes],
    bundle: Path,
    root: Path,
    options: ImportOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files] = RealFiles,
) -> DeployReport:
    """The same of a bundle that comes through a pipe (`-`) or in volumes: it is staged as it comes, and counts when all
    of it came."""
    if options.dry_run:
        raise UsageError(
            "--dry-run cannot check a bundle from a pipe, which can be read only once",
            hint="look at it with regwrap verify - instead",
        )
    check_place(root)
    incoming = incoming_bundle(file, PIPE if bundle == _PIPED else bundle)
    if options.trust is not None:
        options.trust(incoming.contents.id)
    based(incoming.bundle(), (StorageBase(Storage(root)),), hint=_BASE_HINT)
    image_set = ImageSet(
        name=incoming.name, contents=incoming.contents, opened=_never, stage_blobs=partial(_stage_incoming, incoming)
    )
    # the volumes that are still to come may be root's alone
    return _deployed(image_set, root, options, listener, files_for, for_good=bundle == _PIPED)


def _never(digest: Digest) -> AbstractContextManager[tuple[int, Located]]:
    raise ValueError(f"{digest} came once")


def _stage_incoming(incoming: IncomingBundle, staging: Staging, on_bytes: Callable[[int], None]) -> tuple[Digest, ...]:
    def stage_blob(digest: Digest, pieces: Iterator[memoryview]) -> None:
        if staging.has(digest):
            deque(pieces, maxlen=0)
            return
        with staging.new_file(digest) as out:
            for piece in pieces:
                write_all(out, piece)

    wrong = incoming.each_blob(stage_blob, on_bytes)
    if not wrong:
        valid_image_set(replace(incoming.bundle(), base=dict.fromkeys(incoming.contents.sizes, staging)))
    return wrong


def _deployed(
    image_set: ImageSet,
    root: Path,
    options: ImportOptions,
    listener: Listener,
    files_for: Callable[[Owner], Files],
    *,
    for_good: bool,
) -> DeployReport:
    storage = target_storage(root, options)
    if for_good and not options.dry_run:
        storage.tree.become_owner()
    imported = import_image_set(image_set, storage, "deploy", options, listener, files_for)
    return DeployReport(
        images=len(image_set.contents.images),
        tags_added=imported.changes.added,
        tags_replaced=imported.changes.replaced,
        tags_kept=imported.kept,
        blobs_added=len(imported.added),
        bytes_added=sum(size for _digest, size in imported.added),
        mended=len(imported.mended),
        name=image_set.contents.name,
        id=str(image_set.contents.id),
    )
