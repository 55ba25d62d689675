"""Volumes and pipes beside the plain package: what cutting a bundle, or sending it on, costs more."""

import hashlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import PEERS, Scene, make_empty, warm
from servers import PROGRAM, served_registry

_RELEASE: Final = "v1.0"
_PLAIN: Final = "regwrap package"
_VOLUMES: Final = "regwrap package --volume-size"
_PIPE: Final = "regwrap package -o - | to_disk.py"
_CAT: Final = "regwrap package -o - | cat"
_RELEASE_PLAIN: Final = "regwrap release"
_RELEASE_VOLUMES: Final = "regwrap release --volume-size"
_VOLUMES_OF: Final = 5


@dataclass(frozen=True, slots=True)
class _Outputs:
    """The same bundle three times: as a file, in volumes of a fifth, and through a pipe into a file."""

    scene: Scene

    @property
    def place(self) -> Path:
        return self.scene.scratch / "outputs"

    @property
    def bundle(self) -> Path:
        return self.place / "release.tar"

    def package(self, output: str, *more: str) -> tuple[str, ...]:
        corpus = self.scene.corpus
        images, archive = f"{corpus.list_path(_RELEASE)}", f"{corpus.registry}"
        return ("package", images, "--archive", archive, "-o", output, *more)

    def plain(self) -> None:
        self.scene.run_regwrap(*self.package(f"{self.bundle}"))

    @property
    def cut(self) -> tuple[str, str]:
        return "--volume-size", f"{max(1_000_000, self.scene.corpus.unique_bytes(_RELEASE) // _VOLUMES_OF)}B"

    def volumes(self) -> None:
        self.scene.run_regwrap(*self.package(f"{self.bundle}", *self.cut))

    def release(self, source: str, *more: str) -> None:
        """All images are in the archive: they are asked for, packed and verified."""
        images, archive = f"{self.scene.corpus.list_path(_RELEASE)}", f"{self.scene.corpus.registry}"
        words = ("release", images, "--source", source, "--archive", archive, "-o", f"{self.bundle}")
        self.scene.run_regwrap(*words, *more)

    def pipe(self) -> None:
        """To the disk as well, by a receiver that does no more than it has to."""
        words = [f"{PEERS / 'to_disk.py'}", f"{self.bundle}", *self.scene.regwrap, *self.package("-")]
        self.scene.shell.run(["sh", "-c", 'receive=$1 file=$2; shift 2; "$@" | "$receive" "$file"', "sh", *words])

    def cat(self) -> None:
        """By cat, then fsync."""
        words = [*self.scene.regwrap, *self.package("-")]
        with self.bundle.open("wb") as out:
            self.scene.shell.run(["sh", "-c", '"$@" | cat', "sh", *words], stdout=out)
            os.fsync(out.fileno())

    def prepare(self) -> None:
        make_empty(self.place)
        corpus = self.scene.corpus
        warm(corpus.registry / path for path in corpus.blobs(_RELEASE))


@dataclass(slots=True)
class _SameBytes:
    """All contenders have to leave what the first one left."""

    outputs: _Outputs
    digest: str = ""

    def __call__(self) -> None:
        state = hashlib.sha256()
        bundle = self.outputs.bundle
        for path in [bundle] if bundle.is_file() else sorted(self.outputs.place.glob("release.tar.0*")):
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    state.update(data)
        self.digest = self.digest or state.hexdigest()
        if state.hexdigest() != self.digest:
            raise WrongResultError("not the bytes of the plain package")


def volumes_cases(scene: Scene) -> Generator[Case, None, None]:
    outputs = _Outputs(scene)
    mine = Contender(
        name=_VOLUMES, run=outputs.volumes, prepare=outputs.prepare, prove=_SameBytes(outputs),
        watch=Watch(leaves=(outputs.place,)), missing=scene.missing_regwrap("tar"),
    )  # fmt: skip
    yield Case(
        name="volumes and pipes",
        note="The same bytes each time. A volume has its checksum in the end, which the plain package leaves to"
        " `release`; what comes out of the pipe goes into a file, and to the disk. cat copies each byte once more, and"
        " begins to write it to the disk when all of it has come.",
        rounds=scene.rounds + 4,
        seconds=75 * scene.scale,
        contenders=(
            mine,
            replace(mine, name=_PLAIN, run=outputs.plain),
            replace(mine, name=_PIPE, run=outputs.pipe),
            replace(mine, name=_CAT, run=outputs.cat),
        ),
        targets=(
            *(
                Target(
                    key=key, text=f"{key}: at most 1.05 of the plain package",
                    contender=name, against=(_PLAIN,), limit=1.05,
                )
                for key, name in (("volumes", _VOLUMES), ("pipe", _PIPE))
            ),
            *(
                Target(
                    key=f"memory-{key}", text=f"memory of all programs, {key}: at most 120 MB",
                    contender=name, metric="tree_memory", unit=1e6, limit=120,
                )
                for key, name in (("volumes", _VOLUMES), ("pipe", _PIPE))
            ),
        ),
    )  # fmt: skip
    yield from _release_cases(outputs, mine)
    make_empty(outputs.place)


def _release_cases(outputs: _Outputs, mine: Contender) -> Iterator[Case]:
    scene = outputs.scene
    if scene.missing(PROGRAM):
        return
    with served_registry(scene.shell, scene.corpus.registry) as source:
        cut = replace(
            mine, name=_RELEASE_VOLUMES, run=lambda: outputs.release(source.host, *outputs.cut),
            prove=_SameBytes(outputs), missing=scene.missing_regwrap("tar", "skopeo"),
        )  # fmt: skip
        yield Case(
            name="release in volumes",
            note="All images are in the archive. Both kinds are hashed as files once, while they are verified.",
            rounds=scene.rounds,
            seconds=45 * scene.scale,
            contenders=(cut, replace(cut, name=_RELEASE_PLAIN, run=lambda: outputs.release(source.host))),
            targets=(
                Target(
                    key="release-volumes", text="release in volumes: at most 1.05 of the plain release",
                    contender=_RELEASE_VOLUMES, against=(_RELEASE_PLAIN,), limit=1.05,
                ),
            ),
        )  # fmt: skip
