"""A registry image as the history of a package: unpacked for as long as it is needed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.location import Location
from regwrap.core.model import LayoutRef, Platform
from regwrap.forms.baked_base import read_base
from regwrap.forms.baked_unpack import unpack_history
from regwrap.storage.space import need_space
from regwrap.tools.scratch import overlay_directory, temporary_place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.transfer.job import Job

_PLATFORM: Final = Platform("linux", "amd64")  # a storage is the same for all of them


@contextmanager
def history_in_place(job: Job, image: LayoutRef, upper: Path | None) -> Iterator[Job]:
    """The same job, its archive the image's storage on disk, unpacked in `upper`, or else where files go."""
    with overlay_directory((upper or temporary_place()).absolute(), job.scratch) as private:
        root = private / "history"
        _unpack(job, image, root)
        yield replace(job, archive=Location(name=f"{image}", storage=root))


def _unpack(job: Job, image: LayoutRef, root: Path) -> None:
    directory = Path(image.directory)
    total = sum(layer.size for layer in read_base(directory, image.name, _PLATFORM).layers)
    need_space(root.parent.parent, total, hint="give another directory with --upper")
    job.listener.expect("history", total)
    found = unpack_history(directory, image.name, _PLATFORM, root, job.listener.on_bytes)
    job.listener.log(
        f"history {image}: {counted(found.blobs, 'blob')}, {counted(found.links, 'link')}, unpacked into {root}"
    )
