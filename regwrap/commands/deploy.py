"""Import a bundle into a storage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from regwrap.bundle.base import StorageBase, based
from regwrap.bundle.merge import ImportOptions, check_place, import_stock, target_storage
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.stock import sound_stock
from regwrap.storage.commit import Files, Owner, RealFiles
from regwrap.storage.store import Storage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.moves import TagMove

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
    Raises what `import_stock` does.

    `for_good`: root opens the bundle, which may be his alone, and is the storage's owner until the process ends.
    """
    options = replace(options, checksum=known_checksum(bundle))
    check_place(root)
    with opened_bundle(bundle) as opened:
        stock = sound_stock(based(opened, (StorageBase(Storage(root)),), hint=_BASE_HINT))
        storage = target_storage(root, options)
        if for_good and not options.dry_run:
            storage.tree.become_owner()
        imported = import_stock(stock, storage, "deploy", options, listener, files_for)
        return DeployReport(
            images=len(stock.contents.images),
            tags_added=imported.changes.added,
            tags_replaced=imported.changes.moved,
            tags_kept=imported.kept,
            blobs_added=len(imported.added),
            bytes_added=sum(size for _digest, size in imported.added),
            mended=len(imported.mended),
            name=stock.contents.name,
            id=str(stock.contents.id),
        )
