"""The steps of a run, on so many images: no byte travels, as registries and workers are simulated."""

import argparse
import json
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, ParamSpec, TypeVar

from regwrap.bundle.contents import BundleContents, BundleImage, BundleRepository, parse_contents
from regwrap.cli.program import collect_seldom
from regwrap.core.closure import Closure
from regwrap.core.errors import RegwrapError
from regwrap.core.location import Location, Registry
from regwrap.core.manifest import Descriptor, Manifest
from regwrap.core.model import Digest
from regwrap.lists.imagelist import ImageEntry, parse_images
from regwrap.lists.lock import LockedImage, lock_text, parse_lock
from regwrap.registry.endpoint import RegistryEndpoint
from regwrap.report.junit import to_junit
from regwrap.report.record import RunFacts, RunRecord, record_of, to_text
from regwrap.report.record_text import record_text
from regwrap.storage import layout
from regwrap.storage.commit import Additions, Owner, RealFiles, commit
from regwrap.storage.gc import Keep, find_garbage
from regwrap.storage.store import Storage
from regwrap.storage.tree import Tree
from regwrap.tools.rate_limit import HostLimiters
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.transfer.blob_work import BlobWork
from regwrap.transfer.by_cluster import ClusterFetcher, IntoStage
from regwrap.transfer.needs import Need
from regwrap.transfer.orders import Answer, BlobAnswer, FetchOrder, Order
from regwrap.transfer.plan import Copy, Lacking, Plan, make_plan
from regwrap.transfer.run import Copied, SyncReport, run_plan
from regwrap.transfer.run_blobs import BlobRun
from regwrap.transfer.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")
_GROUP: Final = 32
_SHARE: Final = 10  # images that have a layer in common


@dataclass(frozen=True)
class Cost:
    """`seconds` of the processor, `memory` in bytes at most."""

    seconds: float
    memory: int


def _timed(work: Callable[[], object]) -> Cost:
    started = time.process_time()
    work()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Cost(round(time.process_time() - started, 3), used.ru_maxrss * 1024)


def _list(size: int) -> bytes:
    return "".join(f"registry.example/team{n % 97}/app{n}:1.0\n" for n in range(size)).encode()


def _entries(size: int) -> tuple[ImageEntry, ...]:

    return parse_images(_list(size), "images.list").entries


def _observed(size: int) -> Iterator[Lacking]:
    """An image has a config, a layer of its own and one that ten share; its manifest has the bytes of a real one."""

    def blob(name: str, bytes_of: int) -> Descriptor:
        return Descriptor(
            media_type="application/vnd.oci.image.layer.v1.tar+gzip", digest=Digest.of(name.encode()), size=bytes_of
        )

    for number, entry in enumerate(_entries(size)):
        raw = f"{number}".encode().ljust(800)
        config, own = blob(f"config{number}", 2_000), blob(f"own{number}", 3_000 + number % 1000)
        shared = blob(f"shared{number // _SHARE}", 40_000)
        manifest = Manifest(raw=raw, digest=Digest.of(raw), media_type="m", config=config, layers=(shared, own))
        closure = Closure(top=manifest, manifests=(manifest,), blobs=manifest.blobs, omitted=(), missing=())
        yield Lacking(entry=entry, digest=manifest.digest, there=None, closure=closure, missing=manifest.blobs)


def _plan(size: int) -> Plan:

    return make_plan(tuple(_observed(size)))


class _Silent:
    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_more: None


def _read_list(size: int, _place: Path) -> Callable[[], object]:
    data = _list(size)

    return lambda: parse_images(data, "images.list")


def _planning(size: int, _place: Path) -> Callable[[], object]:

    observed = tuple(_observed(size))
    return lambda: make_plan(observed)


def _retry() -> Retry:

    return Retry(RetryPolicy(attempts=1), threading.Event())


def _images_queue(size: int, _place: Path) -> Callable[[], object]:
    """Images that claim blobs, as skopeo copies them."""

    class Nothing:
        exclusive_repositories = False

        def copy_image(self, copy: Copy) -> None:
            pass

        def sent(self, copy: Copy) -> int:
            return copy.bytes_missing

        def bytes_under_way(self) -> int:
            return 0

    plan = _plan(size)
    return lambda: run_plan(plan, Nothing(), jobs=8, retry=_retry(), events=_Silent(), gave_up=lambda error: error)


class _Inline:
    """An executor whose workers have done everything at once."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Nowhere:
    """A destination that takes all."""

    alone = False

    def __init__(self, end: RegistryEndpoint) -> None:
        self.end = end

    def __getattr__(self, _name: str) -> Callable[..., Any]:
        return lambda *_args: None

    def wanted(self, copy: Copy) -> tuple[Descriptor, ...]:
        return copy.closure.blobs

    def lane(self, _copy: Copy) -> str:
        return ""

    def sources_of(self, need: Need) -> Iterable[tuple[RegistryEndpoint, str]]:
        return [(self.end, copy.entry.source.repository) for copy in need.copies[:1]]

    def may_have(self, _need: Need) -> bool:
        return False


def _blobs_queue(size: int, _place: Path) -> Callable[[], object]:
    """Blobs given out to workers of a cluster, as into a storage."""

    registry, limiters, retry = Registry(host="registry.example", tls_verify=True), HostLimiters(), _retry()
    probe: Any = SimpleNamespace(limiter=limiters.of(registry))
    probe.registry = registry
    end = RegistryEndpoint(registry=registry, probe=probe, skopeo=probe)
    ends: Any = SimpleNamespace(
        limiters=limiters, location_of=lambda _end: Location(name=registry.host, registry=registry)
    )

    def perform(order: Order) -> Answer:
        assert isinstance(order, FetchOrder)
        blobs = tuple(BlobAnswer(digest=blob.digest, came=blob.size) for blob in order.blobs)
        return Answer(worker="w", machine="m", seconds=0, blobs=blobs)

    workers = Workers(
        run="r", executor=_Inline(), perform=perform, count=lambda: 10, is_there=lambda: True,
        lost=lambda error: RegwrapError(f"{error}"), stopping=retry.stopping,
    )  # fmt: skip
    orders = IntoStage(workers=workers, endpoints=ends, root=Path("/"))
    fetcher = ClusterFetcher(workers=workers, limiters=limiters, orders=orders, retry=retry)
    nowhere: Any = _Nowhere(end)
    work = BlobWork(
        dest=nowhere, here=nowhere, fetcher=fetcher, jobs=8, retry=retry, events=_Silent(), gave_up=lambda error: error
    )
    plan = _plan(size)

    def run() -> None:
        report = BlobRun(work=work).run(plan.copies)
        assert len(report.outcomes) == size

    return run


def _record(size: int) -> RunRecord:

    copied = tuple(Copied(copy=copy, sent=1, attempts=1, seconds=1) for copy in _plan(size).copies)
    report = SyncReport(copied=copied, skipped=(), failed=(), seconds=1)
    return record_of(
        report, RunFacts(command="sync", list="images.list", shard=None, source=None, started="2026-01-01T00:00:00Z")
    )


def _reports(size: int, _place: Path) -> Callable[[], object]:

    record = _record(size)
    return lambda: (to_text(record), to_junit(record), record_text(record))


def _lock(size: int, _place: Path) -> Callable[[], object]:

    images = [
        LockedImage(
            source=replace(e.source, digest=Digest.of(e.text.encode())), dest=e.dest, chosen=(), platforms=(), size=1
        )
        for e in _entries(size)
    ]
    return lambda: parse_lock(lock_text(images).encode(), "images.lock")


def _contents(size: int) -> BundleContents:

    images: list[BundleImage] = []
    repositories: list[BundleRepository] = []
    blobs: dict[Digest, int] = {}
    for copy in sorted(_plan(size).copies, key=lambda copy: copy.entry.dest):
        name, top = copy.entry.dest.repository, copy.closure.top
        images.append(
            BundleImage(
                repository=name, tag=copy.entry.dest.tag, digest=copy.digest, media_type="m", platforms=(), omitted=()
            )
        )
        layers = tuple(sorted(blob.digest for blob in copy.closure.blobs))
        repositories.append(BundleRepository(name=name, manifests=(copy.digest,), layers=layers))
        blobs |= {blob.digest: blob.size for blob in copy.closure.blobs}
        blobs[top.digest] = len(top.raw)
    images.sort(key=lambda image: image.name)
    repositories.sort(key=lambda repository: repository.name)
    return BundleContents(images=tuple(images), repositories=tuple(repositories), blobs=tuple(sorted(blobs.items())))


def _bundle_written(size: int, _place: Path) -> Callable[[], object]:
    contents = _contents(size)
    return contents.to_json


def _bundle_read(size: int, place: Path) -> Callable[[], object]:
    """What makes it is another process, whose memory does not count here."""
    file = place / f"{size}.json"
    if not (child := os.fork()):
        file.write_bytes(_contents(size).to_json())
        os._exit(0)
    os.waitpid(child, 0)
    return lambda: parse_contents(file.read_bytes())


def _committed(size: int, place: Path) -> Callable[[], object]:
    """Links and tags of images whose blobs are there, 32 images at a time, into a storage in memory."""
    tree = Tree(place / f"archive-{size}")
    tree.root.mkdir()
    tree.make_directory("stage")
    stage, files, copies = tree.inner("stage"), RealFiles(Owner.of(tree)), _plan(size).copies

    def run() -> None:
        for start in range(0, size, _GROUP):
            named = [(copy.entry.dest.repository, copy) for copy in copies[start : start + _GROUP]]
            additions = Additions(
                layers=tuple((name, blob.digest) for name, copy in named for blob in copy.closure.blobs),
                revisions=tuple((name, copy.digest) for name, copy in named),
                tags=tuple((name, copy.entry.dest.tag, copy.digest) for name, copy in named),
            )
            commit(tree, additions, stage=stage, files=files)

    return run


def _garbage(size: int, place: Path) -> Callable[[], object]:
    """A storage of so many images with three empty or small blobs each; half of the images are kept."""

    root = place / "storage"

    def put(name: str, data: bytes) -> None:
        os.makedirs(f"{root}/{name.rpartition('/')[0]}", exist_ok=True)
        with open(f"{root}/{name}", "wb", buffering=0) as file:
            file.write(data)

    def add(data: bytes) -> Digest:
        digest = Digest.of(data)
        put(layout.blob_path(digest), data)
        return digest

    def image(number: int) -> None:
        name = f"team{number % 97}/app{number}"
        blobs = [
            add(f"config{number}".encode()),
            add(f"own{number}".encode()),
            add(f"shared{number // _SHARE}".encode()),
        ]
        kinds = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"{digest}", "size": 9}
            for digest in blobs
        ]
        config = {**kinds[0], "mediaType": "application/vnd.oci.image.config.v1+json"}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": kinds[1:],
        }
        top = add(json.dumps(manifest).encode())
        for digest in blobs:
            put(layout.layer_link(name, digest), f"{digest}".encode())
        put(layout.revision_link(name, top), f"{top}".encode())
        put(layout.tag_link(name, "1"), f"{top}".encode())
        put(layout.tag_index_link(name, "1", top), f"{top}".encode())

    shutil.rmtree(root, ignore_errors=True)
    for number in range(size):
        image(number)
    keep = Keep(names=frozenset(f"team{number % 97}/app{number}:1" for number in range(0, size, 2)), last=None)
    return lambda: find_garbage(Storage(root), keep)


STEPS: Final[dict[str, Callable[[int, Path], Callable[[], object]]]] = {
    "read the list": _read_list,
    "plan": _planning,
    "queue of images, for skopeo": _images_queue,
    "queue of blobs, orders to workers": _blobs_queue,
    "reports: JSON, JUnit, text": _reports,
    "lock: written and read": _lock,
    "bundle.json: written": _bundle_written,
    "bundle.json: read": _bundle_read,
    "commit: links and tags, in memory": _committed,
    "gc decides": _garbage,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--size", type=int)
    parser.add_argument("--place", type=Path)
    given = parser.parse_args()
    collect_seldom()  # as the program does
    sys.stdout.write(json.dumps(asdict(_timed(STEPS[given.step](given.size, given.place)))))
    sys.stdout.flush()
    os._exit(0)  # to free a million values piece by piece takes as long as to make them


if __name__ == "__main__":
    main()
