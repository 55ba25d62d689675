"""Open what a user names: a bundle's file or a storage's directory."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from regwrap.bundle.base import BASE_HINT, Base, StorageBase, based, refuse_bases
from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.discovery import history_image_set, storage_image_set
from regwrap.bundle.examine import verify_storage
from regwrap.bundle.image_set import ImageSet, valid_image_set
from regwrap.bundle.read import Bundle, hash_all, opened_bundle
from regwrap.core.counts import counted
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.text import human_bytes
from regwrap.storage.hashing import hash_problem
from regwrap.storage.lock import locked_storage
from regwrap.storage.store import Storage, need_storage, real_root
from regwrap.storage.survey import linked_directories
from regwrap.storage.tree import LinkedDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest

_HINT: Final = "give a bundle, or the registry's root directory (rootdirectory in its configuration)"


@contextmanager
def opened_image_set(
    path: Path, *, lock_timeout: float, listener: Listener, bases: Sequence[Path] = ()
) -> Iterator[ImageSet]:
    """The image set for the block; a storage is locked (shared) as long. `bases` have what a delta requires. Raises
    UsageError, IntegrityError, ImagesFailedError."""
    if not path.is_dir():
        with (
            opened_bases(bases, lock_timeout=lock_timeout, listener=listener) as opened,
            whole_image_set(path, opened, listener) as it,
        ):
            yield it
        return
    refuse_bases(f"{path}", bases)
    with _read(path, lock_timeout, listener) as storage:
        yield storage_image_set(storage, listener)


@contextmanager
def opened_bases(
    paths: Sequence[Path], *, lock_timeout: float | None, listener: Listener
) -> Iterator[tuple[Base, ...]]:
    """What has the blobs that a delta requires: bundles, or storages, which are locked (shared) unless there is no
    `lock_timeout`."""
    with ExitStack() as stack:
        bases = list[Base]()
        for path in paths:
            if not path.is_dir():
                bases.append(stack.enter_context(opened_bundle(path, listener=listener)))
            elif lock_timeout is None:
                bases.append(StorageBase(need_storage(real_root(path), hint=_HINT)))
            else:
                bases.append(StorageBase(stack.enter_context(_read(path, lock_timeout, listener))))
        yield tuple(bases)


@contextmanager
def whole_image_set(
    path: Path, bases: Sequence[Base], listener: Listener, trust: Trust | None = None
) -> Iterator[ImageSet]:
    """All of a bundle's images; a delta's with what is in its bases. Raises UsageError where it has none."""
    with opened_bundle(path, trust, listener) as bundle:
        if bundle.contents.required and not bases:
            raise _needs_base(bundle)
        yield whole_of(based(bundle, bases, hint=BASE_HINT))


def whole_of(bundle: Bundle) -> ImageSet:
    """With what a delta requires. Raises IntegrityError where the bundle is inconsistent."""
    return replace(valid_image_set(bundle), contents=bundle.contents.whole)


def _needs_base(bundle: Bundle) -> UsageError:
    """A delta alone is not what was asked for."""
    required = bundle.contents.required
    releases = sorted({blob.release for blob in required if blob.release})
    return UsageError(
        f"{bundle.path} is a delta: {counted(len(required), 'blob')} of its images"
        f" ({human_bytes(bundle.contents.required_bytes)}) must come from {', '.join(releases) or 'what the site has'}",
        hint=BASE_HINT,
    )


@contextmanager
def opened_history(path: Path, *, lock_timeout: float, listener: Listener) -> Iterator[ImageSet]:
    """The same for a storage without its images."""
    with _read(path, lock_timeout, listener) as storage:
        yield history_image_set(storage, listener)


@contextmanager
def _read(path: Path, lock_timeout: float, listener: Listener) -> Iterator[Storage]:
    storage = need_storage(real_root(path), hint=_HINT)
    with locked_storage(storage.tree, exclusive=False, timeout=lock_timeout, on_wait=listener.log, untouched=True):
        yield storage


@contextmanager
def opened_contents(
    path: Path, *, hashed: bool, listener: Listener, bases: Sequence[Path] = (), trust: Trust | None = None
) -> Iterator[ImageSet | StorageSource]:
    """A bundle whose structure is valid, or a storage, for the block. `bases` have what a delta requires. Raises
    UsageError, IntegrityError, ImagesFailedError."""
    if path.is_dir():
        refuse_bases(f"{path}", bases)
        storage = need_storage(real_root(path), hint=_HINT)
        if links := linked_directories(storage, listener):
            raise LinkedDirectoryError(storage.tree.shown(links[0]))
        if hashed:
            _check(f"{path}", verify_storage(storage.root, None, listener).problems)
        yield StorageSource(name=f"{storage.root}", storage=storage)
        return
    with (
        opened_bases(bases, lock_timeout=None, listener=listener) as opened,
        whole_image_set(path, opened, listener, trust) as image_set,
    ):
        if hashed:
            check_bytes(image_set, image_set.contents.blobs, listener)
        yield image_set


def check_bytes(image_set: ImageSet, blobs: Sequence[tuple[Digest, int]], listener: Listener) -> None:
    """Raises IntegrityError where one of these blobs is not what its digest says."""
    listener.expect("verify", sum(size for _digest, size in blobs))
    wrong = hash_all(image_set.copy, blobs, listener.on_bytes)
    _check(image_set.name, tuple(hash_problem(digest, unread=why) for digest, why in wrong.items()))


def _check(name: str, problems: tuple[str, ...]) -> None:
    if problems:
        raise IntegrityError(f"{name} is damaged", problems=problems, hint="copy or build the bundle again")
