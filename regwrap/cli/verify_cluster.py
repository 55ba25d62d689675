"""The command verify, of a storage that all workers of a cluster share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from regwrap.bundle.examine import VerifyReport, verify_storage
from regwrap.cli.cluster import Cluster, with_workers
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.cli.wanted import listed
from regwrap.storage.store import real_root
from regwrap.transfer.by_cluster import hash_by_workers

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.lists.imagelist import ImageEntry


def checked_storage(
    path: Path, images_list: str | None, cluster: Cluster, *, exact: bool, quiet: bool
) -> tuple[VerifyReport, tuple[ImageEntry, ...] | None]:
    """Links and manifests are looked at here, bytes by the workers."""
    with opened_session(quiet=quiet) as session:
        progress, entries = session.progress, None
        if images_list is not None:
            entries = listed(images_list, load(cluster.config), progress).entries
        with with_workers(session, cluster, ()) as workers:
            hash_elsewhere = partial(hash_by_workers, workers, real_root(path))
            result = verify_storage(path, entries, progress, exact=exact, hash_elsewhere=hash_elsewhere)
        for note in result.notes:
            progress.log(f"note: {note}")
    return result, entries
