"""Images that a supplier sent as files: skopeo unpacks each once, and from then on they are sources as any other.

What skopeo has written is not believed: it is hashed when it is copied, as everything is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from regwrap.bundle.discovery import tree_image_set
from regwrap.core.errors import ImagesFailedError, UsageError
from regwrap.storage.space import need_space

if TYPE_CHECKING:
    from collections.abc import Callable

    from regwrap.bundle.image_set import ImageSet
    from regwrap.core.archive_ref import ArchiveRef
    from regwrap.tools.skopeo import Skopeo

_DOCKER: Final = "docker-archive"


@dataclass(slots=True, kw_only=True)
class Archives:
    """`directory` is this run's, and goes with it. Asked from several threads; two lines may name one archive."""

    skopeo: Callable[[], Skopeo]
    directory: Path
    _image_sets: dict[str, ImageSet] = field(default_factory=dict)
    _number: int = 0
    _locks: dict[str, Lock] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def image_set_of(self, ref: ArchiveRef) -> ImageSet:
        """The image, unpacked. Raises ImagesFailedError where there is no such archive, and ToolError."""
        with self._lock:
            lock = self._locks.setdefault(ref.url, Lock())
        with lock:
            if ref.url not in self._image_sets:
                self._image_sets[ref.url] = self._unpacked(ref)
            return self._image_sets[ref.url]

    def _unpacked(self, ref: ArchiveRef) -> ImageSet:
        path = Path(ref.path)
        if not path.exists():
            raise ImagesFailedError(
                f"{ref.path} does not exist", hint="paths in a list are relative to the directory where regwrap starts"
            )
        self.directory.mkdir(exist_ok=True)
        need_space(self.directory, path.stat().st_size, hint="set TMPDIR to a directory with more space")
        with self._lock:
            self._number += 1
            directory = self.directory / f"{self._number}"
        is_docker = ref.transport == _DOCKER
        self.skopeo().unpack(
            ref.url, f"oci:{directory}:{ref.tag}" if is_docker else f"dir:{directory}", keep_digests=not is_docker
        )
        try:
            return tree_image_set(f"{directory}", named=ref.repository if is_docker else f"{ref.repository}:{ref.tag}")
        except UsageError as error:  # of a directory that nobody but skopeo has written
            raise ImagesFailedError(f"{ref.url} has no image: {error.message}") from error
