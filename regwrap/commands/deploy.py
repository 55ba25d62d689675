"""Import a bundle into a storage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from regwrap.bundle.merge import ImportOptions, import_stock, target_storage
from regwrap.bundle.releases import known_checksum
from regwrap.bundle.stock import bundle_stock
from regwrap.storage.commit import Files, Owner, RealFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.moves import TagMove


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
    """Import the bundle's images into the storage at `root`, made if absent. Raises what `import_stock` does.

    `for_good`: root opens the bundle, which may be his alone, and is the storage's owner until the process ends.
    """
    options = replace(options, checksum=known_checksum(bundle))
    with bundle_stock(bundle) as stock:
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
