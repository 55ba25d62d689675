"""Join a delta with what it requires: the whole bundle, byte for byte what the vendor has."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.base import based
from regwrap.bundle.image_set import valid_image_set
from regwrap.bundle.join import join_bundle
from regwrap.bundle.opened import opened_bases
from regwrap.bundle.read import opened_bundle
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinReport:
    """The bundle that was written; of its blobs `delta_bytes` came from the delta, `base_bytes` from its bases."""

    path: Path
    name: str
    id: Digest
    images: int
    blobs: int
    delta_bytes: int
    base_bytes: int
    file_bytes: int
    seconds: float


def join_bundles(
    bases: Sequence[Path], delta: Path, output: Path, *, lock_timeout: float, listener: Listener
) -> JoinReport:
    """Raises UsageError (no delta), ImagesFailedError (a blob is in none of the bases), IntegrityError, ToolError."""
    started = time.monotonic()
    with (
        opened_bases(bases, lock_timeout=lock_timeout, listener=listener) as opened,
        opened_bundle(delta, listener=listener) as alone,
    ):
        contents = alone.contents
        if not contents.required:
            raise UsageError(f"{delta} is a whole bundle, not a delta", hint="give the bases first, the delta last")
        joined = based(alone, opened, hint="give all bundles that it was made since, or a storage that has them")
        valid_image_set(joined)
        join_bundle(joined, output, listener)
    return JoinReport(
        path=output,
        name=contents.name,
        id=contents.id,
        images=len(contents.images),
        blobs=len(contents.whole.blobs),
        delta_bytes=contents.blob_bytes,
        base_bytes=contents.required_bytes,
        file_bytes=contents.whole.tar_bytes,
        seconds=time.monotonic() - started,
    )
