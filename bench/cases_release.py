"""A release from end to end, sync and package, in the ways in which it was done: each round is the next release."""

import contextlib
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import storage
from cases_overlay import OVERLAY_TOOLS, why_no_overlay
from family import RELEASES
from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import PEERS, Scene, make_empty, prove_bundle, prove_tags, warm
from servers import PROGRAM, Server, served_docker, served_registry

_REGWRAP: Final = "regwrap sync + package"
_DOCKER: Final = "docker pull/tag/push"
_LOOP: Final = "skopeo copy loop"
_OVERLAY: Final = "seed's overlay flow"
_SELECTION: Final = "sequel's selection flow"


@dataclass(slots=True, kw_only=True)
class _Flow:
    """`sync` brings a list into the archive, `package` makes the bundle. `start` puts v1.0 into the archive first, if
    links to the source's files don't do; `read` is where the flow reads blobs."""

    scene: Scene
    name: str
    archive: Path
    work: Path
    sync: Callable[[Path], None]
    package: Callable[[Path, Path], None]
    exact: bool = True
    start: Callable[[], None] | None = None
    read: tuple[Path, ...] = ()
    last: int = 0
    bundle: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bundle = self.work / "release.tar"

    @property
    def release(self) -> str:
        return RELEASES[self.last]

    def prepare(self) -> None:
        if self.last == 0 and self.start:
            self.start()
        elif self.last == 0:
            storage.copy_part(self.scene.corpus.registry, self.scene.corpus.blobs(RELEASES[0]), self.archive)
        make_empty(self.work)
        (self.work / "storage").mkdir()
        self.last += 1
        # what the flow before has written may have put it out of the page cache
        warm(path for root in (self.archive, *self.read) for path in root.rglob("*") if path.is_file())
        warm(self.scene.corpus.registry / path for path in self.scene.corpus.blobs(self.release))

    def run(self) -> Mapping[str, float]:
        begin = time.perf_counter()
        self.sync(self.scene.corpus.list_path(self.release))
        middle = time.perf_counter()
        self.package(self.scene.corpus.list_path(self.release), self.bundle)
        return {"sync": middle - begin, "package": time.perf_counter() - middle}

    def prove(self) -> None:
        prove_bundle(self.scene.corpus, self.release, self.bundle, exact=self.exact)

    def contender(self, watch: Watch, missing: str, rounds: int | None = None) -> Contender:
        return Contender(
            name=self.name, run=self.run, prepare=self.prepare, prove=self.prove, missing=missing, rounds=rounds,
            watch=watch,
        )  # fmt: skip


def release_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing(PROGRAM):
        return
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(served_registry(scene.shell, scene.corpus.registry))
        docker = _started_docker(scene, stack)
        contenders = (
            _regwrap(scene, stack, source),
            _docker_flow(scene, stack, source, docker),
            _loop(scene, stack, source),
            _overlay(scene, stack, source),
            _selection(scene, stack, source),
            _bundler(scene, stack, source, "hauler"),
            _bundler(scene, stack, source, "mindthegap"),
        )
        yield Case(
            name="release, end to end",
            images=len(scene.corpus.references(RELEASES[1])),
            note="Round n makes v1.n from an archive that holds the releases before: sync, then one tar, synced. Of an"
            " index docker takes one platform.",
            rounds=min(scene.rounds, len(RELEASES) - 1),  # of regwrap; the others get one, which takes long enough
            seconds=(600 if scene.whole else 360) * scene.scale,
            contenders=contenders,
            targets=tuple(
                Target(
                    key=f"release-{key}",
                    text=f"release v1.1, sync + package: at least {times}x faster than the {peer}",
                    contender=_REGWRAP, against=(peer,), limit=1 / times,
                )
                for key, peer, times in (
                    ("docker", _DOCKER, 25), ("loop", _LOOP, 13), ("overlay", _OVERLAY, 7), ("hauler", "hauler", 2),
                )
            ),
        )  # fmt: skip


def _started_docker(scene: Scene, stack: contextlib.ExitStack) -> Server | None:
    if scene.missing("dockerd", "docker"):
        return None
    data = scene.scratch / "docker-data"
    stack.callback(shutil.rmtree, data, ignore_errors=True)
    return stack.enter_context(served_docker(scene.shell, data))


def _docker_flow(scene: Scene, stack: contextlib.ExitStack, source: Server, docker: Server | None) -> Contender:
    """It starts with v1.0 pulled and pushed, in parallel, since that is not on the clock."""
    archive, work, server = _place(scene, stack, "docker")
    data = scene.scratch / "docker-data"
    host = docker.host if docker else ""
    script = f"{PEERS / 'docker_copy.sh'}"

    def copy(images: Path, jobs: int = 1) -> None:
        scene.shell.run(["env", f"DOCKER_HOST={host}", script, source.host, server.host, f"{images}", f"{jobs}"])

    def start() -> None:
        copy(scene.corpus.list_path(RELEASES[0]), jobs=8)
        prove_tags(scene.corpus, RELEASES[0], archive)

    def package(images: Path, bundle: Path) -> None:
        # fmt: off
        scene.shell.run([
            "env", f"DOCKER_HOST={host}", f"{PEERS / 'package_by_copy.sh'}", script, server.host, f"{images}",
            f"{work}", f"{bundle}",
        ])
        # fmt: on

    missing = scene.missing("dockerd", "docker")
    watch = Watch(source=source, dest=server, daemon=docker, leaves=(work, data))
    flow = _Flow(
        scene=scene, name=_DOCKER, archive=archive, work=work, sync=copy, package=package, exact=False, start=start,
        read=(data,),
    )  # fmt: skip
    return flow.contender(watch, missing, rounds=1)


def _regwrap(scene: Scene, stack: contextlib.ExitStack, source: Server) -> Contender:
    archive, work = _directories(scene, stack, "regwrap")

    def sync(images: Path) -> None:
        scene.run_regwrap("sync", f"{images}", "--source", source.host, "--archive", f"{archive}")

    def package(images: Path, bundle: Path) -> None:
        scene.run_regwrap("package", f"{images}", "--archive", f"{archive}", "-o", f"{bundle}")

    flow = _Flow(scene=scene, name=_REGWRAP, archive=archive, work=work, sync=sync, package=package)
    return flow.contender(Watch(source=source, leaves=(work,)), scene.missing_regwrap("skopeo", "curl"))


def _loop(scene: Scene, stack: contextlib.ExitStack, source: Server) -> Contender:
    archive, work, server = _place(scene, stack, "loop")

    def package(images: Path, bundle: Path) -> None:
        scene.run_peer("package_by_copy.sh", PEERS / "skopeo_copy.sh", server.host, images, work, bundle)

    flow = _Flow(
        scene=scene, name=_LOOP, archive=archive, work=work, sync=_copying(scene, source, server), package=package
    )  # fmt: skip
    watch = Watch(source=source, dest=server, leaves=(work,))
    return flow.contender(watch, scene.missing("skopeo", "setpriv"), rounds=1)


def _overlay(scene: Scene, stack: contextlib.ExitStack, source: Server) -> Contender:
    archive, work, server = _place(scene, stack, "overlay")

    def package(images: Path, bundle: Path) -> None:
        scene.run_peer("seed_overlay.sh", server.host, images, archive, work, bundle)

    flow = _Flow(
        scene=scene, name=_OVERLAY, archive=archive, work=work, sync=_copying(scene, source, server), package=package
    )  # fmt: skip
    watch = Watch(source=source, dest=server, leaves=(work,))
    return flow.contender(watch, scene.missing(*OVERLAY_TOOLS) or why_no_overlay(scene), rounds=1)


def _selection(scene: Scene, stack: contextlib.ExitStack, source: Server) -> Contender:
    archive, work, server = _place(scene, stack, "selection")

    def package(images: Path, bundle: Path) -> None:
        scene.run_peer("shell_selection.sh", archive, images, work, bundle)

    flow = _Flow(
        scene=scene, name=_SELECTION, archive=archive, work=work, sync=_copying(scene, source, server), package=package
    )  # fmt: skip
    watch = Watch(source=source, dest=server, leaves=(work,))
    return flow.contender(watch, scene.missing("skopeo"), rounds=1)


def _bundler(scene: Scene, stack: contextlib.ExitStack, source: Server, program: str) -> Contender:
    """From nothing: their archives (hauler's store, mindthegap's --merge) would put both releases into the file. Their
    bundles are not tars of a storage."""
    archive, work = _directories(scene, stack, program)

    def package(images: Path, bundle: Path) -> None:
        scene.run_peer(f"{program}_bundle.sh", source.host, images, work, bundle)

    flow = _Flow(scene=scene, name=program, archive=archive, work=work, sync=lambda _: None, package=package)
    watch = Watch(source=source, leaves=(work,))
    contender = flow.contender(watch, scene.missing(program), rounds=1)
    return replace(contender, prove=lambda: _prove_file(flow.bundle))


def _prove_file(bundle: Path) -> None:
    if not bundle.is_file():
        raise WrongResultError(f"{bundle.name} was not written")


def _copying(scene: Scene, source: Server, dest: Server) -> Callable[[Path], None]:
    return lambda images: scene.run_peer("skopeo_copy.sh", source.host, dest.host, images, 1)


def _place(scene: Scene, stack: contextlib.ExitStack, name: str) -> tuple[Path, Path, Server]:
    archive, work = _directories(scene, stack, name)
    return archive, work, stack.enter_context(served_registry(scene.shell, archive))


def _directories(scene: Scene, stack: contextlib.ExitStack, name: str) -> tuple[Path, Path]:
    archive, work = scene.scratch / f"release-{name}", scene.scratch / f"work-{name}"
    for directory in (archive, work):
        make_empty(directory)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return archive, work
