"""Sync by one and four workers of Dask, each behind a link of its own, beside a run on one such machine without them.

The workers have been there before: neither their start nor the scheduler's is on the clock, that of regwrap is. The
source and the archive are behind no link, and the archive is in memory: no disk shall be what is measured.
"""

import contextlib
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corpus import Corpus
from links import HUB_ADDRESS, TOOLS, Machine, linked_machines, why_no_links
from measure import Case, Contender, Target
from meter import Watch
from scene import Scene, make_empty, prove_storage
from servers import PROGRAM, Server, served_registry
from shell import wait_for_line

_RELEASE: Final = "v1.0"
_RATE: Final = "100mbit"
_WORKERS: Final = 4
_IMAGES: Final = 46
# forty seconds of one link: of ten seconds two would be the start of the client
_BYTES: Final = 500_000_000
PLAIN: Final = "one machine, no cluster"
ONE: Final = "1 worker"
ALL: Final = f"{_WORKERS} workers"
_MEMORY: Final = "/dev/shm"
_DASK: Final = (sys.executable, "-m", "dask")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Farm:
    """`clusters` are schedulers' addresses, by the number of their workers. What syncs without one is `alone`."""

    scene: Scene
    corpus: Corpus
    hub: Machine
    alone: Machine
    clusters: dict[int, str]
    source: Server
    archive: Path


def cluster_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing_regwrap(PROGRAM, "curl", "skopeo", *TOOLS) or why_no_links():
        return
    corpus = scene.other_corpus("medium", max(10, round(_IMAGES * scene.scale)), int(_BYTES * scene.scale))
    with _served(scene, corpus) as farm:
        yield _case(farm)


@contextlib.contextmanager
def _served(scene: Scene, corpus: Corpus) -> Iterator[_Farm]:
    with contextlib.ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regwrap-bench-", dir=_MEMORY)))
        hub, machines = stack.enter_context(linked_machines(scene.shell, _WORKERS, _RATE))
        source = stack.enter_context(served_registry(scene.shell, corpus.registry, hub))
        clusters = {count: stack.enter_context(_cluster(scene, hub, machines[:count])) for count in (1, _WORKERS)}
        yield _Farm(
            scene=scene, corpus=corpus, hub=hub, alone=machines[0], clusters=clusters, source=source,
            archive=memory / "archive",
        )  # fmt: skip


@contextlib.contextmanager
def _cluster(scene: Scene, hub: Machine, machines: Sequence[Machine]) -> Iterator[str]:
    """The scheduler's address, once all workers are there."""
    name, shell = f"cluster-{len(machines)}", scene.shell
    with contextlib.ExitStack() as stack:
        log = shell.home / f"{name}.log"
        argv = hub.command(*_DASK, "scheduler", "--host", HUB_ADDRESS, "--port", "0", "--no-dashboard")
        process = stack.enter_context(shell.started(argv, log=log))
        address = wait_for_line(process, log, rb"(tcp://[0-9.]+:\d+)")
        for number, machine in enumerate(machines):
            place = scene.scratch / f"{name}-{number}"
            place.mkdir()
            # fmt: off
            words = (
                "worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard", "--memory-limit", "0",
                "--local-directory", f"{place}",
            )
            # fmt: on
            stack.enter_context(shell.started(machine.command(*_DASK, *words), log=place / "log"))
        wait = f"from distributed import Client; Client({address!r}).wait_for_workers({len(machines)}, 60)"
        shell.run(hub.command(sys.executable, "-c", wait))
        shell.run(hub.command(*scene.regwrap, "doctor", "--cluster", address, "--insecure-cluster"))
        yield address


def _case(farm: _Farm) -> Case:
    unique, images = farm.corpus.unique_bytes(_RELEASE), len(farm.corpus.references(_RELEASE))
    what = "sync by a cluster, links of 100 Mbit/s"
    return Case(
        name=what,
        note=f"{images} images, {unique:,} unique bytes, into an archive that all share; each worker has a link of its"
        " own, in namespaces of this machine.",
        images=images,
        rounds=1,
        contenders=(
            _contender(farm, ALL, farm.hub, _WORKERS),
            _contender(farm, ONE, farm.hub, 1),
            _contender(farm, PLAIN, farm.alone),
        ),
        targets=(
            Target(
                key="cluster", text=f"{what}: {ALL} take at most 0.30 of 1",
                contender=ALL, against=(ONE,), limit=0.30,
            ),
            Target(
                key="cluster-one", text=f"{what}: {ONE} takes at most 1.1 of {PLAIN}",
                contender=ONE, against=(PLAIN,), limit=1.1,
            ),
            Target(
                key="cluster-bytes", text=f"{what}, {ALL}: bytes that the source sent, 1.00 to 1.01 of unique",
                contender=ALL, metric="sent", unit=unique, least=0.999, limit=1.01,
            ),
        ),
    )  # fmt: skip


def _contender(farm: _Farm, name: str, machine: Machine, workers: int = 0) -> Contender:
    scene = farm.scene
    # fmt: off
    words = machine.command(
        *scene.regwrap, "sync", f"{farm.corpus.list_path(_RELEASE)}", "--source", f"http://{farm.source.host}",
        "--dest", f"{farm.archive}",
        *(("--cluster", farm.clusters[workers], "--insecure-cluster") if workers else ()),
    )
    # fmt: on
    return Contender(
        name=name,
        prepare=lambda: make_empty(farm.archive),
        run=lambda: scene.shell.run(words),
        prove=lambda: prove_storage(farm.corpus, _RELEASE, farm.archive),
        watch=Watch(source=farm.source, leaves=(farm.archive,)),
    )
