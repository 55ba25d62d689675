"""Export and import: what a user names is opened and locked, the work is done, private directories go."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from regwrap.convert.export import ExportOptions, ExportReport, export_images
from regwrap.convert.take import ImportOptions, ImportReport, import_images
from regwrap.convert.tree import Form
from regwrap.model import DOCKER_LIST, DOCKER_MANIFEST
from regwrap.pipeline.scratch import overlay_directory
from regwrap.stock.found import tree_stock
from regwrap.stock.opened import opened_stock
from regwrap.storage.store import real_root

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.pipeline.job import Job


def export_stock(job: Job, source: Path, target: Path, *, form: Form, dry_run: bool) -> ExportReport:
    """Write the images of a bundle or a storage into the directory `target`."""
    target = target.absolute()
    with ExitStack() as stack:
        stock = stack.enter_context(opened_stock(source, lock_timeout=job.timeouts.lock, on_wait=job.listener.say))
        options = ExportOptions(
            form=form,
            dry_run=dry_run,
            aside=lambda: stack.enter_context(overlay_directory(target.parent, job.scratch)),
            expect=job.listener.expect,
            on_bytes=job.listener.on_bytes,
        )
        old = [i.name for i in stock.contents.images if i.media_type in {DOCKER_MANIFEST, DOCKER_LIST}]
        if form is Form.OCI and old:
            job.listener.say(
                f"note: {len(old)} images have docker's manifests, {old[0]} for one: they are kept as they are."
                " skopeo does not read such out of an OCI layout; regwrap import does, --format dir has no such limit"
            )
        return export_images(stock, target, options)


def import_tree(
    job: Job, place: str, root: Path, *, named: str | None, replace_tags: bool, dry_run: bool
) -> ImportReport:
    """Bring what `DIR` or `oci:DIR[:NAME]` holds into the storage at `root`."""
    options = ImportOptions(
        replace_tags=replace_tags,
        dry_run=dry_run,
        lock_timeout=job.timeouts.lock,
        on_wait=job.listener.say,
        expect=job.listener.expect,
        on_bytes=job.listener.on_bytes,
    )
    return import_images(tree_stock(place, named=named), real_root(root), options)
