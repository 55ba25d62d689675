"""A bundle that goes into a pipe or into volumes while its blobs come, in any order.

They come to their places in a file without a name, and leave it as soon as all that lies in front of them is there.
What has left is given back to the disk, so no byte is on it twice, and nothing is left of a run that was killed.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.aside import Part, give_back
from regwrap.bundle.contents import links_end
from regwrap.bundle.in_place import BundleInPlace
from regwrap.core.errors import IntegrityError
from regwrap.core.writing import temporary_file
from regwrap.storage.hashing import pieces_at

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regwrap.bundle.contents import BundleContents
    from regwrap.bundle.stream import Target
    from regwrap.core.model import Digest

_POLL_SECONDS: Final = 0.01


@contextmanager
def passed_bundle(
    target: Target,
    contents: BundleContents,
    fill: Callable[[BundleInPlace], None],
    *,
    directory: Path,
    stopping: threading.Event,
) -> Iterator[None]:
    """`fill` puts all blobs, in a thread of its own, into a file in `directory`; `target` takes the bundle's bytes. Its
    end follows when the block ends. `stopping` ends the thread where `target` takes no more.

    Raises UsageError, ToolError (no space), IntegrityError (blobs that did not come), and what `fill` raises.
    """
    with target.written(contents) as sink, temporary_file(directory) as file:
        bundle = BundleInPlace.begun(contents, Part(directory, file.fileno()), was_there=False, is_kept=False)
        with ThreadPoolExecutor(1, thread_name_prefix="fill") as pool:
            passing = _Passing(bundle, pool.submit(fill, bundle))
            try:
                for piece in passing.pieces():
                    sink.write(piece)
                passing.filling.result()
            except BaseException:
                stopping.set()
                raise
        yield
        sink.write(memoryview(bytes(contents.tar_bytes - links_end(contents))))


@dataclass(frozen=True, slots=True)
class _Passing:
    """A bundle that is being filled, and the thread that fills it."""

    bundle: BundleInPlace
    filling: Future[None]

    def pieces(self) -> Iterator[memoryview]:
        """All but the end, in order; a piece is good until the next is asked for."""
        position = 0
        for digest, place in self.bundle.places.items():
            self._wait_for(digest)
            yield from self._read(position, place.end)
            position = place.end
        yield from self._read(position, links_end(self.bundle.contents))

    def _read(self, start: int, end: int) -> Iterator[memoryview]:
        descriptor = self.bundle.part.descriptor
        yield from pieces_at(descriptor, start, end - start)
        give_back(descriptor, start, end)

    def _wait_for(self, digest: Digest) -> None:
        """Raises what ended the thread, and IntegrityError where the blob did not come."""
        while digest not in self.bundle.proved:
            if not wait([self.filling], timeout=_POLL_SECONDS).done:
                continue
            self.filling.result()
            if digest not in self.bundle.proved:
                raise IntegrityError(f"blob {digest} was not received; no bundle was written")
