"""What every kind of stock is for its readers: bundle.json's view of the images, and each blob as a range of a file.

Nothing here is verified but sizes: who copies a blob hashes what is copied.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.bundle.contents import BundleContents, Member
from regwrap.bundle.read import HASH_THREADS, Located, chunks_of, opened_bundle, structure_problems
from regwrap.core.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """`name` is for messages. `opened(D)` gives a descriptor and where in that file the blob's bytes are."""

    name: str
    contents: BundleContents
    opened: Callable[[Digest], AbstractContextManager[tuple[int, Located]]]

    def is_right(self, digest: Digest) -> bool:
        """Whether the bytes are those of the digest. Safe from several threads."""
        return self.copy(digest, lambda _chunk: None)

    def copy(self, digest: Digest, write: Callable[[memoryview], object]) -> bool:
        """Hand all bytes to `write`, and say whether they were those of the digest."""
        state = hashlib.sha256()
        with self.opened(digest) as (descriptor, located):
            for chunk in chunks_of(descriptor, located):
                state.update(chunk)
                write(chunk)
        return state.hexdigest() == digest.hex


@contextmanager
def bundle_stock(path: Path) -> Iterator[Stock]:
    """Raises UsageError and IntegrityError, also where the bundle does not fit together."""
    with opened_bundle(path) as bundle:
        problems = structure_problems(bundle)
        if problems:
            raise IntegrityError(f"{path} does not fit together", problems=tuple(problems))

        @contextmanager
        def opened(digest: Digest) -> Iterator[tuple[int, Located]]:
            yield bundle.descriptor, bundle.blobs[digest]

        yield Stock(name=f"{path}", contents=bundle.contents, opened=opened)


def file_stock(name: str, contents: BundleContents, path_of: Callable[[Digest], Path]) -> Stock:
    """A stock in which each blob is a file of its own."""
    sizes = dict(contents.blobs)

    @contextmanager
    def opened(digest: Digest) -> Iterator[tuple[int, Located]]:
        with opened_file(path_of(digest), sizes[digest], digest) as descriptor:
            member = Member(path=f"{digest}", size=sizes[digest], digest=digest)
            yield descriptor, Located(member=member, offset=0)

    return Stock(name=name, contents=contents, opened=opened)


@contextmanager
def opened_file(path: Path, size: int, digest: Digest) -> Iterator[int]:
    """Raises IntegrityError where there is no regular file of that size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise IntegrityError(f"blob {digest} can't be read ({path}: {error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise IntegrityError(f"blob {digest} is no file with {size} bytes ({path})")
        yield descriptor
    finally:
        os.close(descriptor)


def in_threads(
    work: Callable[[Digest], bool], blobs: tuple[tuple[Digest, int], ...], on_bytes: Callable[[int], None]
) -> tuple[Digest, ...]:
    """Do `work` on each blob, with several threads; those for which it said no."""

    def one(blob: tuple[Digest, int]) -> Digest | None:
        right = work(blob[0])
        on_bytes(blob[1])
        return None if right else blob[0]

    with ThreadPoolExecutor(HASH_THREADS, thread_name_prefix="copy") as pool:
        try:
            return tuple(digest for digest in pool.map(one, blobs) if digest is not None)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def damaged(stock: Stock, wrong: tuple[Digest, ...]) -> IntegrityError:
    return IntegrityError(
        f"{stock.name} is damaged; nothing was written",
        problems=tuple(f"blob {digest}: the bytes have another digest" for digest in wrong),
        hint="copy it or make it again; regwrap verify looks at a bundle or a storage as a whole",
    )
