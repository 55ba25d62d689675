"""What a worker of a cluster does to put blobs into a registry: from another one, or from a bundle or a storage that it
has by the same path as the client."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from regwrap.bundle.by_repository import LocalSource, StorageSource
from regwrap.bundle.opened import whole_of
from regwrap.bundle.read import opened_bundle
from regwrap.bundle.volume_places import volumes_also_in, volumes_of
from regwrap.core.errors import IntegrityError, ToolError, UsageError
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.storage.store import Storage, real_root
from regwrap.transfer.at_worker import endpoint_of
from regwrap.transfer.blob_index import BlobIndex
from regwrap.transfer.by_curl import Travel
from regwrap.transfer.into_registry import BlobSender
from regwrap.transfer.orders import BlobAnswer, Refusal, SharedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from regwrap.transfer.at_worker import Surroundings
    from regwrap.transfer.by_curl import BlobSource
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.orders import PushOrder, SendOrder

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
    endpoints: Endpoints, order: PushOrder, around: Surroundings, opened: OpenedContents
) -> tuple[BlobAnswer, ...]:
    """Put them there. Raises UsageError where this worker cannot."""
    where = order.source
    source = opened.of(where) if isinstance(where, SharedFiles) else endpoint_of(endpoints, where)
    sender = BlobSender(
        dest=endpoint_of(endpoints, order.dest),
        index=BlobIndex(),
        limiters=endpoints.limiters,
        timeouts=endpoints.job.timeouts,
        stopping=endpoints.job.stopping,
    )
    return tuple(_pushed(sender, source, send, around) for send in order.blobs)


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


def _pushed(sender: BlobSender, source: BlobSource, send: SendOrder, around: Surroundings) -> BlobAnswer:
    if not around.is_wanted():
        stopped = ToolError("the upload was stopped: nobody waits for it")
        return BlobAnswer(digest=send.digest, refusal=Refusal.of(stopped))
    blob = Descriptor(media_type="", digest=Digest.parse(send.digest), size=send.size)
    travel = Travel(blob=blob, end=source, repository=send.repository)
    sender.dest.known.update(dict.fromkeys(send.new, False))
    if send.mount:
        sender.index.add(send.mount, (blob.digest,))
    try:
        refused = sender.send(travel, send.to)
    except (ToolError, IntegrityError, UnsureError) as error:
        return BlobAnswer(digest=send.digest, came=travel.came, refusal=Refusal.of(error))
    said = tuple((repository, Refusal.of(error)) for repository, error in refused.items())
    return BlobAnswer(digest=send.digest, came=travel.came, refused=said)
