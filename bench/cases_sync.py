"""Sync of a list from one registry into an archive: into nothing, again, from far away, with few or many jobs."""

import contextlib
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from corpus import Corpus
from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import Scene, make_empty, prove_blobs, prove_storage
from servers import PROGRAM, Server, delayed_registry, served_registry

_RELEASE: Final = "v1.0"
_JOBS: Final = (1, 4, 16)
_DELAYS: Final = (0, 5, 20, 50)
REGISTRY: Final = "regwrap sync"
EMBEDDED: Final = "regwrap sync, embedded"
REGSYNC: Final = "regsync x8"
# Each copies a list from one registry to another; what it needs is the first word of its second line.
_SCRIPTS: Final = {
    "skopeo sync": ("skopeo_sync.sh", "skopeo"),
    "xargs -P8 skopeo copy": ("skopeo_copy.sh", "skopeo"),
    "crane x8": ("crane_copy.sh", "crane"),
    REGSYNC: ("regsync_once.sh", "regsync"),
    "imgpkg x8": ("imgpkg_copy.sh", "imgpkg"),
}
PEERS: Final = tuple(_SCRIPTS)
_LOOP: Final = "xargs -P8 skopeo copy"
_REQUESTS: Final = "curl, bare requests"
_LOOKING: Final = (REGSYNC, _REQUESTS)
_COPY: Final = "bare copy"
_PULL: Final = "bare pull"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A contender's own archive; a registry serves it, unless regwrap writes into the directory."""

    storage: Path
    server: Server | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    source: Server
    archives: dict[str, End]


def sync_cases(scene: Scene) -> Generator[Case, None, None]:
    """Each case starts from what the one before has left, so the order matters."""
    if scene.missing(PROGRAM):
        return
    with served_ends(scene, scene.corpus, (REGISTRY, EMBEDDED, *PEERS, _COPY)) as ends:
        yield _cold_case(scene, ends)
        yield _again_case(scene, ends)
        yield from _latency_cases(scene, ends)


@contextlib.contextmanager
def served_ends(scene: Scene, corpus: Corpus, names: Sequence[str]) -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(served_registry(scene.shell, corpus.registry))
        archives: dict[str, End] = {}
        for number, name in enumerate(names):
            storage = scene.scratch / f"archive-{number}"
            stack.callback(shutil.rmtree, storage, ignore_errors=True)
            make_empty(storage)
            embedded = name == EMBEDDED
            server = None if embedded else stack.enter_context(served_registry(scene.shell, storage))
            archives[name] = End(storage=storage, server=server)
        yield Ends(source=source, archives=archives)


def copy_contender(
    scene: Scene, ends: Ends, name: str, corpus: Corpus, jobs: int | None = None, engine: str = "auto"
) -> Contender:
    """Brings v1.0 of the corpus into the contender's archive. `engine` is regwrap's."""
    end, images = ends.archives[name], corpus.list_path(_RELEASE)
    if name in {REGISTRY, EMBEDDED}:
        dest = end.server.host if end.server else f"{end.storage}"
        # fmt: off
        arguments = (
            "sync", f"{images}", "--source", ends.source.host, "--archive", dest, *(("-j", f"{jobs}") if jobs else ()),
            "--engine", engine,
        )
        # fmt: on
        return Contender(
            name=name,
            run=lambda: scene.run_regwrap(*arguments),
            prove=lambda: prove_storage(corpus, _RELEASE, end.storage),
            missing=scene.missing_regwrap("skopeo", "curl"),
            watch=Watch(source=ends.source, dest=end.server, leaves=(end.storage,)),
        )
    assert end.server
    watch = Watch(source=ends.source, dest=end.server, leaves=(end.storage,))
    if name == _COPY:
        run = scene.bare("copy", ends.source.host, images, end.server.host)
        return Contender(name=name, run=run, prove=lambda: prove_storage(corpus, _RELEASE, end.storage), watch=watch)
    script, program = _SCRIPTS[name]
    words = (ends.source.host, end.server.host, images, jobs or 8)
    return Contender(
        name=name,
        run=lambda: scene.run_peer(script, *words),
        prove=lambda: _prove_copy(corpus, name, end.storage),
        missing=scene.missing(program),
        watch=watch,
    )


def _prove_copy(corpus: Corpus, name: str, root: Path) -> None:
    if name == "imgpkg x8":  # its tags are digests
        prove_blobs(corpus, _RELEASE, root)
    else:
        prove_storage(corpus, _RELEASE, root, scoped=name != "skopeo sync")


def _contenders(scene: Scene, ends: Ends) -> list[Contender]:
    return [copy_contender(scene, ends, name, scene.corpus) for name in ends.archives]


def _cold_case(scene: Scene, ends: Ends) -> Case:
    unique = scene.corpus.unique_bytes(_RELEASE)
    return Case(
        name="sync, empty archive",
        note=f"v1.0: {len(scene.corpus.references(_RELEASE))} images, {unique:,} unique bytes.",
        images=len(scene.corpus.references(_RELEASE)),
        rounds=scene.rounds,
        seconds=150 * scene.scale,
        contenders=(
            *(replace(x, prepare=Emptying(ends.archives[x.name].storage)) for x in _cold_order(scene, ends)),
            _bare_pull(scene, ends),
        ),
        targets=(
            Target(
                key="sync-cold",
                text="sync, empty archive, registry to registry: at most 0.75 of the best peer",
                contender=REGISTRY, against=PEERS, limit=0.75,
            ),
            Target(
                key="sync-cold-bare",
                text="the same: at most 1.25 of each unique blob's GET piped into PUT, links and manifests",
                contender=REGISTRY, against=(_COPY,), limit=1.25,
            ),
            Target(
                key="sync-cold-bytes",
                text="the same, bytes that the archive wrote: 1.00 to 1.01 of unique",
                contender=REGISTRY, metric="archived", unit=unique, least=0.999, limit=1.01,
            ),
            Target(
                key="sync-embedded",
                text="sync, empty embedded archive: at most 1.3 of curl into files, synced, hashed",
                contender=EMBEDDED, against=(_PULL,), limit=1.3,
            ),
            Target(
                key="memory-sync",
                text="memory of the whole tree, the same: at most 80 MB",
                contender=EMBEDDED, metric="tree_memory", unit=1e6, limit=80,
            ),
        ),
    )  # fmt: skip


def _cold_order(scene: Scene, ends: Ends) -> list[Contender]:
    """The second is what ratios are shown to. The slowest peer, never the best, gets one round."""
    found = {x.name: x for x in _contenders(scene, ends)}
    found[_LOOP] = replace(found[_LOOP], rounds=1)
    return [found.pop(REGISTRY), found.pop("skopeo sync"), *found.values()]


def _bare_pull(scene: Scene, ends: Ends) -> Contender:
    """What an embedded archive only has to do: all blobs by one curl, on the disk, and hashed."""
    place = scene.scratch / "pulled"
    return Contender(
        name=_PULL,
        prepare=Emptying(place),
        run=scene.bare("pull", ends.source.host, scene.corpus.list_path(_RELEASE), place),
        missing=scene.missing("curl"),
        watch=Watch(source=ends.source, leaves=(place,)),
    )


@dataclass(frozen=True, slots=True)
class Emptying:
    storage: Path

    def __call__(self) -> None:
        make_empty(self.storage)


def _again_case(scene: Scene, ends: Ends) -> Case:
    return Case(
        name="sync, nothing changed",
        images=len(scene.corpus.references(_RELEASE)),
        rounds=scene.rounds + 2,
        seconds=30 * scene.scale,
        contenders=(
            *(replace(x, watch=replace(x.watch, leaves=())) for x in _cold_order(scene, ends) if x.name != _COPY),
            _bare_requests(scene, ends),
        ),
        targets=(
            Target(
                key="sync-again",
                text="sync, nothing changed, loopback: at most 0.5 of skopeo sync",
                contender=REGISTRY, against=("skopeo sync",), limit=0.5,
            ),
            Target(
                key="sync-again-requests",
                text="the same: at most 1.2 of regsync, or of a HEAD of each image at both ends",
                contender=REGISTRY, against=_LOOKING, limit=1.2,
            ),
            Target(
                key="sync-again-embedded",
                text="the same into an embedded archive: at most 0.9 of it",
                contender=EMBEDDED, against=_LOOKING, limit=0.9,
            ),
        ),
    )  # fmt: skip


def _bare_requests(scene: Scene, ends: Ends) -> Contender:
    """The least that a comparison of both ends takes, by a program that does nothing else: its start, and a HEAD of
    each image at each end over eight connections."""
    end = ends.archives[REGISTRY]
    assert end.server
    words = (ends.source.host, end.server.host, scene.corpus.list_path(_RELEASE), 8)
    return Contender(
        name=_REQUESTS,
        run=lambda: scene.run_peer("head_requests.sh", *words),
        missing=scene.missing("curl"),
        watch=Watch(source=ends.source, dest=end.server),
    )


def _latency_cases(scene: Scene, ends: Ends) -> Generator[Case, None, None]:
    names = (EMBEDDED, "skopeo sync", REGSYNC)
    with contextlib.ExitStack() as stack:
        contenders = []
        for delay in _DELAYS:
            host = stack.enter_context(delayed_registry(ends.source.host, delay / 1000))
            far = replace(ends, source=replace(ends.source, host=host))
            near_enough = [name for name in names if name != "skopeo sync" or delay < _DELAYS[-1]]  # it takes a minute
            contenders += [_distant(scene, ends, far, name, delay) for name in near_enough]
            contenders.append(replace(_bare_requests(scene, far), x=delay))
        yield Case(
            name="sync, nothing changed, by latency",
            note="A proxy on loopback holds each request back by so many milliseconds; the archive is near.",
            axis="milliseconds a request is late",
            rounds=scene.rounds,
            seconds=40 * scene.scale,
            contenders=tuple(contenders),
            targets=(
                *(
                    Target(
                        key="latency-requests",
                        text=f"sync, nothing changed, {delay} ms away: at most 0.5 of regsync, or of the bare requests",
                        contender=f"{EMBEDDED}@{delay}", against=tuple(f"{name}@{delay}" for name in _LOOKING),
                        limit=0.5,
                    )
                    for delay in _DELAYS[-2:]
                ),
                Target(
                    key="latency-skopeo",
                    text="sync, nothing changed, 20 ms away: at most 0.25 of skopeo sync",
                    contender=f"{EMBEDDED}@20", against=("skopeo sync@20",), limit=0.25,
                ),
            ),
        )  # fmt: skip


def _distant(scene: Scene, near: Ends, far: Ends, name: str, delay: int) -> Contender:
    """Before the clock starts everything is there, brought without the delay."""
    close, distant = (copy_contender(scene, ends, name, scene.corpus) for ends in (near, far))

    def prepare() -> None:
        try:
            close.prove()
        except WrongResultError:
            close.run()

    return replace(distant, prepare=prepare, x=delay, watch=replace(distant.watch, leaves=()))


def jobs_cases(scene: Scene) -> Generator[Case, None, None]:
    """On a small corpus, since every point starts from nothing."""
    if scene.missing(PROGRAM):
        return
    small = scene.other_corpus("small", max(10, round(23 * scene.scale)), int(2.5e8 * scene.scale))
    names = (REGISTRY, EMBEDDED, "xargs -P skopeo copy")
    with served_ends(scene, small, names) as ends:
        ends.archives["xargs -P8 skopeo copy"] = ends.archives["xargs -P skopeo copy"]
        unique = small.unique_bytes(_RELEASE)
        contenders = [
            replace(
                copy_contender(scene, ends, name.replace("-P ", "-P8 "), small, jobs),
                name=name, x=jobs, prepare=Emptying(ends.archives[name].storage),
            )
            for jobs in _JOBS for name in names
        ]  # fmt: skip
        yield Case(
            name="sync, empty archive, by jobs",
            note=f"{len(small.references(_RELEASE))} images, {unique:,} unique bytes: an eighth of the corpus.",
            axis="images at the same time",
            rounds=scene.rounds,
            seconds=40 * scene.scale,
            contenders=tuple(contenders),
            targets=(
                Target(
                    key="sync-16-bytes",
                    text="sync, empty archive, jobs 16, bytes that the archive wrote: 1.00 to 1.01 of unique",
                    contender=f"{REGISTRY}@16", metric="archived",
                    unit=unique, least=0.999, limit=1.01,
                ),
            ),
        )  # fmt: skip
        yield _engine_case(scene, ends, small)
    tiny = scene.other_corpus("tiny", max(10, round(40 * scene.scale)), int(1.2e6 * scene.scale))
    with served_ends(scene, tiny, (REGISTRY, EMBEDDED)) as ends:
        yield _engine_case(scene, ends, tiny)


def _engine_case(scene: Scene, ends: Ends, corpus: Corpus) -> Case:
    """What `--engine auto` may choose from, for two shapes of work."""
    ways = [(REGISTRY, engine) for engine in ("stream", "copy", "sync")]
    ways += [(EMBEDDED, engine) for engine in ("curl", "copy")]
    contenders = [
        replace(
            copy_contender(scene, ends, name, corpus, engine=engine),
            name=f"{name}, {engine}", prepare=Emptying(ends.archives[name].storage),
        )
        for name, engine in ways
    ]  # fmt: skip
    unique, images = corpus.unique_bytes(_RELEASE), len(corpus.references(_RELEASE))
    return Case(
        name=f"sync, empty archive, by engine: {corpus.root.name} images",
        note=f"{images} images, {unique:,} unique bytes.",
        images=images,
        rounds=scene.rounds,
        seconds=30 * scene.scale,
        contenders=tuple(contenders),
        targets=tuple(
            Target(
                key="engine",
                text=f"{name}, {corpus.root.name} images: the engine that auto takes, at most 1.0 of the others",
                contender=f"{name}, {best}", limit=1.0,
                against=tuple(f"{other}, {engine}" for other, engine in ways if other == name and engine != best),
            )
            for name, best in ((REGISTRY, "stream"), (EMBEDDED, "curl"))
        ),
    )  # fmt: skip
