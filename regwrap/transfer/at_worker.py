"""What a worker of a cluster does with an order, by the same curl, pipes and hashes as a run without a cluster.

It never raises for one blob: what came of each is told. What it fetches into the stage of a storage it has hashed, and
written to the disk, before it says so.
"""

from __future__ import annotations

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from regwrap.bundle.by_repository import StorageSource
from regwrap.core.errors import IntegrityError, LostBlobError, RegwrapError, ToolError, UsageError
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.core.pool import map_in_order
from regwrap.core.writing import on_file, status_of
from regwrap.storage.hashing import copy_range, hash_problem
from regwrap.storage.own import own_tree
from regwrap.storage.stage import SYNC
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from regwrap.tools.curl import Curl
from regwrap.transfer.by_curl import BlobFetcher, Travel
from regwrap.transfer.fetch import PARTS, Stage, damaged_on_the_way
from regwrap.transfer.orders import BlobAnswer, FetchOrder, HashOrder, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from regwrap.registry.endpoint import RegistryEndpoint
    from regwrap.transfer.endpoints import Endpoints
    from regwrap.transfer.job import Job
    from regwrap.transfer.orders import RegistryName

_REPORT_SECONDS: Final = 0.5
_HASHERS: Final = 2
_PATH_HINT: Final = (
    "give the workers the same directory by the same path (the same mount), or a registry as destination"
)


class Surroundings(Protocol):
    """Who gave the order: whether anybody waits for it, and who hears how it goes."""

    def is_wanted(self) -> bool: ...
    def came(self, counts: Mapping[str, int]) -> None:
        """Bytes of blobs that are coming."""


def endpoint_of(endpoints: Endpoints, name: RegistryName) -> RegistryEndpoint:
    """What this worker's configuration calls so. Raises UsageError where that is another registry than the client's."""
    location = endpoints.job.location_of(name.asked)
    here = location.registry.host if location.registry else "no registry"
    if here != name.host:
        raise UsageError(
            f"{name.asked} is {here} in the configuration of this worker, and {name.host} in that of the client",
            hint="give the client and all workers the same configuration; regwrap doctor --cluster compares them",
        )
    return endpoints.registry(location)


def mark_stage(stage: Stage, run: str) -> None:
    """So that workers see that their directory is the client's, and not another by the same name."""
    stage.create(_mark_of(run)).close()


def unmark_stage(stage: Stage, run: str) -> None:
    stage.remove(_mark_of(run))


def _mark_of(run: str) -> str:
    return f"run-{run}"


def fetch_blobs(endpoints: Endpoints, order: FetchOrder, around: Surroundings) -> tuple[BlobAnswer, ...]:
    """Fetch them into the stage. Raises UsageError where this worker cannot."""
    job, end = endpoints.job, endpoint_of(endpoints, order.source)
    stage = _stage_of(order)
    travels = tuple(
        Travel(
            blob=Descriptor(media_type="", digest=Digest.parse(blob.digest), size=blob.size),
            end=end,
            repository=blob.repository,
            renewals=blob.renewals,
        )
        for blob in order.blobs
    )
    with ExitStack() as stack:
        for travel in travels:
            stack.enter_context(_own_part(stage, travel.blob))
        arriving = stack.enter_context(_arriving(stage, around))
        fetcher = BlobFetcher(curl=_curl(job), parts=stage, scratch=job.scratch, retry=job.retry)
        fetcher.fetch(travels, arriving, parallel=order.parallel)
        arriving.pool.shutdown()
        return tuple(arriving.answer(travel) for travel in travels)


def _curl(job: Job) -> Curl:
    return Curl(runner=job.runner, scratch=job.scratch, timeouts=job.timeouts)


def _other_directory(name: str) -> UsageError:
    return UsageError(f"{name} on this worker is another directory than the client's", hint=_PATH_HINT)


def _stage_of(order: FetchOrder) -> Stage:
    root = Path(order.root)
    try:
        tree = own_tree(Tree(root), make=False).inner(SYNC)
        is_same = tree.size(_mark_of(order.run)) is not None
    except OSError as error:
        raise UsageError(f"{root} cannot be used on this worker: {error.strerror}", hint=_PATH_HINT) from error
    if not is_same:
        raise _other_directory(f"{root}")
    return Stage(tree, mark=f"-{secrets.token_hex(4)}")


@contextmanager
def _own_part(stage: Stage, blob: Descriptor) -> Iterator[None]:
    """What earlier orders and runs have left of the blob, as a file that nobody else writes to; what is left of it is
    for the next. A worker that was lost may still live, and write: its file is copied."""
    tree, own, plain = stage.tree, stage.part(blob.digest), f"{PARTS}/{blob.digest.hex}"
    for entry in tree.entries(PARTS):
        if entry.name.startswith(f"{blob.digest.hex}-"):
            _copy_part(tree, f"{PARTS}/{entry.name}", own)
    with suppress(FileNotFoundError):
        tree.rename(plain, tree, own)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            tree.rename(own, tree, plain)


def _copy_part(tree: Tree, name: str, own: str) -> None:
    with suppress(FileNotFoundError), os.fdopen(tree.open(name), "rb") as reader:
        with suppress(FileNotFoundError):
            tree.remove_file(own)
        with os.fdopen(tree.create(own), "wb", buffering=0) as writer:
            copy_range(reader.fileno(), 0, status_of(reader.fileno()).st_size, writer.fileno(), 0)
        tree.remove_file(name)


@contextmanager
def _arriving(stage: Stage, around: Surroundings) -> Iterator[_Arriving]:
    with ThreadPoolExecutor(_HASHERS, thread_name_prefix="hash") as pool:
        yield _Arriving(stage=stage, around=around, pool=pool)


@dataclass(slots=True, kw_only=True)
class _Arriving:
    """Hears of a batch, hashes what is whole, and keeps what came of each blob."""

    stage: Stage
    around: Surroundings
    pool: ThreadPoolExecutor
    said: dict[Digest, Refusal | bool] = field(default_factory=dict)
    begun_ones: list[Travel] = field(default_factory=list)
    _reported_at: float = field(default_factory=time.monotonic)
    _reported: dict[Digest, int] = field(default_factory=dict)

    def answer(self, travel: Travel) -> BlobAnswer:
        said = self.said.get(travel.blob.digest, False)
        is_refused = isinstance(said, Refusal)
        return BlobAnswer(
            digest=f"{travel.blob.digest}",
            came=travel.came,
            renewals=travel.renewals,
            again=not is_refused and said is False,
            refusal=said if isinstance(said, Refusal) else None,
        )

    def begun(self, travel: Travel) -> None:
        self.begun_ones.append(travel)

    def complete(self, travel: Travel) -> None:
        self.pool.submit(self._prove, travel)

    def proved(self, travel: Travel) -> None:
        self.said[travel.blob.digest] = True

    def again(self, travel: Travel) -> None:
        self.said[travel.blob.digest] = False

    def failed_to_come(self, travel: Travel, error: RegwrapError) -> None:
        self.said[travel.blob.digest] = Refusal.of(error)

    def refused(self, travel: Travel, errors: Mapping[str, RegwrapError]) -> None:
        raise TypeError(f"{travel.where}: a storage refuses nothing ({len(errors)})")

    def is_wanted(self) -> bool:
        if time.monotonic() - self._reported_at > _REPORT_SECONDS and self.begun_ones:
            self._reported_at = time.monotonic()
            self._report()
        return self.around.is_wanted()

    def _report(self) -> None:
        """Only what is new: of thousands of small blobs it is told once each, however long the others take."""
        came = {travel.blob.digest: travel.came for travel in self.begun_ones}
        if new := {f"{digest}": count for digest, count in came.items() if self._reported.get(digest) != count}:
            self._reported = came
            self.around.came(new)

    def _prove(self, travel: Travel) -> None:
        """On the disk before it counts: the client's sync does not reach what is in this machine's memory."""
        blob, stage = travel.blob, self.stage
        try:
            with suppress(FileNotFoundError):
                descriptor = stage.tree.open(stage.part(blob.digest))
                try:
                    with on_file(descriptor):
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            if stage.accept_part(blob) or stage.is_valid(blob):
                self.proved(travel)
            else:
                self.failed_to_come(travel, damaged_on_the_way(travel.where, blob, blob.size))
        except OSError as error:
            self.failed_to_come(travel, ToolError(f"{stage.tree.root}: {error.strerror}", transient=True))


def hash_blobs(order: HashOrder, around: Surroundings) -> tuple[BlobAnswer, ...]:
    """Which are right. Raises UsageError where this worker has not the directory."""
    root = Path(order.root)
    if not root.is_dir():
        raise UsageError(f"there is no {root} on this worker", hint=_PATH_HINT)
    source = StorageSource(name=f"{root}", storage=Storage(root))

    def look(blob: tuple[str, int]) -> BlobAnswer:
        return _hashed(source, Digest.parse(blob[0]), blob[1], around)

    return map_in_order(look, order.blobs, workers=_HASHERS, name="hash")


def _hashed(source: StorageSource, digest: Digest, size: int, around: Surroundings) -> BlobAnswer:
    if not around.is_wanted():
        return BlobAnswer(digest=f"{digest}", again=True)
    if source.storage.blob_size(digest) != size:
        raise _other_directory(source.name)
    wrong = IntegrityError(hash_problem(digest))
    try:
        if source.storage.hash_blob(digest) == digest:
            return BlobAnswer(digest=f"{digest}", came=size)
    except LostBlobError as error:
        wrong = error
    return BlobAnswer(digest=f"{digest}", came=size, refusal=Refusal.of(wrong))
