"""A bundle straight from a registry, from nothing or beside a history; and a release in which one image changed."""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import storage
from family import RELEASES
from measure import Case, Contender, Target
from meter import Watch
from scene import Scene, make_empty, prove_bundle, warm
from servers import PROGRAM, Server, served_registry

_FIRST, _NEXT = RELEASES[:2]
_DIRECT: Final = "regwrap package, direct"
_PULL: Final = "bare pull"
_NIGHTLY: Final = "regwrap sync + package"
_ALONE: Final = "regwrap package"
# Each writes a file of the whole list; what it needs is the first word of its name.
_BUNDLERS: Final = ("hauler", "mindthegap")


def direct_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing_regwrap(PROGRAM, "curl"):
        return
    with ExitStack() as stack:
        source = stack.enter_context(served_registry(scene.shell, scene.corpus.registry))
        yield _from_nothing(scene, source)
        yield _nightly(scene, source)


def _from_nothing(scene: Scene, source: Server) -> Case:
    bundle, work, pulled = (scene.scratch / name for name in ("direct.tar", "direct-work", "direct-pulled"))
    images = scene.corpus.list_path(_FIRST)

    def start_over() -> None:
        bundle.unlink(missing_ok=True)
        for directory in (work, pulled):
            make_empty(directory)

    mine = Contender(
        name=_DIRECT,
        prepare=start_over,
        run=lambda: _direct(scene, source, images, bundle),
        prove=lambda: prove_bundle(scene.corpus, _FIRST, bundle),
        watch=Watch(source=source, leaves=(bundle,)),
    )
    bare = replace(mine, name=_PULL, run=scene.bare("pull", source.host, images, pulled), prove=lambda: None,
                   watch=Watch(source=source, leaves=(pulled,)))  # fmt: skip
    return Case(
        name="bundle from nothing",
        note="No archive: the listed images from a registry into one synced file. The bare one leaves files.",
        images=len(scene.corpus.references(_FIRST)),
        rounds=scene.rounds,
        seconds=40 * scene.scale,
        contenders=(mine, bare, *(_bundler(scene, source, name, mine, work, bundle) for name in _BUNDLERS)),
        targets=(
            Target(
                key="direct", text="bundle from nothing: at most 0.8 of the best peer that writes one file",
                contender=_DIRECT, against=_BUNDLERS, limit=0.8,
            ),
            Target(
                key="direct-bare", text="the same: at most 1.3 of curl into files, synced, hashed",
                contender=_DIRECT, against=(_PULL,), limit=1.3,
            ),
            Target(
                key="direct-bytes", text="the same, bytes written: at most 1.05 of the blobs",
                contender=_DIRECT, metric="written", unit=scene.corpus.unique_bytes(_FIRST), limit=1.05,
            ),
        ),
    )  # fmt: skip


def _direct(scene: Scene, source: Server, images: Path, bundle: Path) -> None:
    scene.run_regwrap("package", f"{images}", "--source", source.host, "--strategy", "direct", "-o", f"{bundle}")


def _bundler(scene: Scene, source: Server, program: str, mine: Contender, work: Path, bundle: Path) -> Contender:
    images = scene.corpus.list_path(_FIRST)
    return replace(
        mine, name=program, run=lambda: scene.run_peer(f"{program}_bundle.sh", source.host, images, work, bundle),
        prove=lambda: None, missing=scene.missing(program), rounds=1,
    )  # fmt: skip


def _nightly(scene: Scene, source: Server) -> Case:
    """The first changed image of the next release in the place of its old one."""
    archive, bundle, images = (scene.scratch / name for name in ("nightly", "nightly.tar", "nightly.list"))
    old, new = (scene.corpus.references(release) for release in (_FIRST, _NEXT))
    changed = next(line for line in new if line not in old)
    lines = [changed if line.rpartition(":")[0] == changed.rpartition(":")[0] else line for line in old]
    images.write_text("".join(f"{line}\n" for line in lines))

    def start_over() -> None:
        bundle.unlink(missing_ok=True)
        make_empty(archive)
        storage.copy_part(scene.corpus.registry, scene.corpus.blobs(_FIRST), archive)
        warm(archive / path for path in scene.corpus.blobs(_FIRST))

    def sync() -> None:
        scene.run_regwrap("sync", f"{images}", "--source", source.host, "--archive", f"{archive}")

    def package() -> None:
        scene.run_regwrap("package", f"{images}", "--archive", f"{archive}", "-o", f"{bundle}")

    def both() -> None:
        sync()
        package()

    def prepare_alone() -> None:
        start_over()
        sync()

    watch = Watch(source=source, leaves=(bundle,))
    return Case(
        name="nightly, one image changed",
        note=f"{len(lines)} images, of which the archive lacks one.",
        images=len(lines),
        rounds=scene.rounds,
        seconds=20 * scene.scale,
        contenders=(
            Contender(name=_NIGHTLY, prepare=start_over, run=both, prove=lambda: None, watch=watch),
            Contender(name=_ALONE, prepare=prepare_alone, run=package, prove=lambda: None, watch=watch),
        ),
        targets=(
            Target(
                key="nightly", text="sync + package of 183 images of which one changed: at most 1.2 of package alone",
                contender=_NIGHTLY, against=(_ALONE,), limit=1.2,
            ),
        ),
    )  # fmt: skip
