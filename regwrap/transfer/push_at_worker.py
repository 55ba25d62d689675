"""What a worker of a cluster does to put blobs into a registry: from another one, or from a bundle or a storage that it
has by the same path as the client."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, NoReturn

from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.bundle.opened import whole_of
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.volume_places import volumes_also_in, volumes_of
from regwrap.core.closure import Closure
from regwrap.core.errors import ToolError, UsageError
from regwrap.core.model import Descriptor, Destination, Digest, Manifest
from regwrap.lists.naming import entry_of
from regwrap.storage.store import Storage, real_root
from regwrap.transfer.at_worker import endpoint_of, told
from regwrap.transfer.blob_index import BlobIndex
from regwrap.transfer.into_registry import ContentsOrigin, EndpointsOrigin, PushCarrier
from regwrap.transfer.orders import SharedFiles
from regwrap.transfer.plan import Copy, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from regwrap.transfer.at_worker import Surroundings
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.into_registry import Origin
    from regwrap.transfer.orders import BlobAnswer, PushOrder, SendOrder

_PATH_HINT: Final = "give the workers the bundle or storage by the same path as the client"


@dataclass(slots=True)
class OpenedContents:
    """Bundles and storages that a run pushes from, each opened once; `stack` closes them."""

    stack: ExitStack
    _known: dict[SharedFiles, LocalSource] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, files: SharedFiles) -> LocalSource:
        with self._lock, volumes_also_in(tuple(map(Path, files.volumes_from))):
            if files not in self._known:
                self._known[files] = self.stack.enter_context(_contents(Path(files.path), files.release))
            return self._known[files]


def push_blobs(
    ends: Endpoints, order: PushOrder, around: Surroundings, opened: OpenedContents
) -> tuple[BlobAnswer, ...]:
    """Put them there. Raises UsageError where this worker cannot."""
    dest = endpoint_of(ends, order.dest)
    with _origin(ends, order, opened) as origin:
        carrier = PushCarrier(
            origin=origin,
            dest=dest,
            proof=_by_client,
            fallback=_NoFallback(),
            index=BlobIndex(),
            stopping=ends.job.retry.stopping,
        )
        return tuple(told(partial(_pushed, carrier, send, around), send.digest) for send in order.blobs)


@contextmanager
def _origin(ends: Endpoints, order: PushOrder, opened: OpenedContents) -> Iterator[Origin]:
    if isinstance(order.source, SharedFiles):
        yield ContentsOrigin(opened.of(order.source))
        return
    source = endpoint_of(ends, order.source)
    dest = endpoint_of(ends, order.dest)
    yield EndpointsOrigin(
        source_of=lambda _entry: source, limiters=ends.limiters, timeouts=ends.job.timeouts, dest=dest.registry
    )


@contextmanager
def _contents(path: Path, release: str) -> Iterator[LocalSource]:
    """The client has checked signatures; a blob that is not what its digest says no registry takes."""
    if path.is_dir():
        yield StorageSource(name=f"{path}", storage=Storage(real_root(path)))
        return
    if not path.exists() and not volumes_of(path):
        raise UsageError(f"there is no {path} on this worker", hint=_PATH_HINT)
    with opened_bundle(path) as bundle:
        if f"{bundle.contents.id}" != release:
            raise UsageError(f"{path} on this worker is another release than the client's", hint=_PATH_HINT)
        yield whole_of(bundle)


def _pushed(carrier: PushCarrier, send: SendOrder, around: Surroundings) -> int:
    if not around.is_wanted():
        raise ToolError("the upload was stopped: nobody waits for it")
    copy = _part_of(send)
    (blob,) = copy.missing
    if send.mount:
        carrier.index.add(send.mount, (blob.digest,))
    before = carrier.meter.of(copy)
    carrier.bring(copy, blob)
    return carrier.meter.of(copy) - before


def _part_of(send: SendOrder) -> Copy:
    """Of the image, what the order says: one blob."""
    blob = Descriptor(media_type="", digest=Digest.parse(send.digest), size=send.size)
    manifest = Manifest(raw=b"", digest=blob.digest, media_type="", config=blob, layers=())
    part = Closure(top=manifest, manifests=(manifest,), blobs=(blob,), omitted=(), missing=())
    entry = entry_of(send.repository, "-", blob.digest)
    entry = replace(entry, dest=Destination(send.to, send.tag))
    return Copy(entry=entry, digest=blob.digest, reason=Reason.ABSENT, closure=part, missing=(blob,))


def _by_client(_copy: Copy) -> NoReturn:
    raise AssertionError("the client puts manifests, and asks for them")


class _NoFallback:
    """Where only skopeo can ask, the client copies the image itself."""

    exclusive_repositories = False

    def carry(self, copy: Copy) -> NoReturn:
        raise AssertionError(f"{copy.entry.dest}: the client copies it")

    def sent(self, _copy: Copy) -> int:
        return 0

    def bytes_under_way(self) -> int:
        return 0
