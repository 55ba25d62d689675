"""Deltas: what one costs beside a package of the new images alone, how much is in it, and what it takes to join one."""

import filecmp
import os
import tarfile
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from family import RELEASES
from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import Scene, warm

_OLD, _NEW = RELEASES[:2]
_SINCE: Final = "regwrap package --since"
_NEW_ONLY: Final = "package of the new images"
_JOIN: Final = "regwrap join"
_CAT: Final = "cat + fsync"


@dataclass(frozen=True, slots=True)
class _Releases:
    """v1.1 after v1.0, and what is made of them: each bundle is there once the one before it was asked for."""

    scene: Scene

    def path(self, name: str) -> Path:
        return self.scene.scratch / f"{name}.tar"

    def package(self, images: Path, name: str, *more: str) -> None:
        self.scene.run_regwrap(
            "package", f"{images}", "--archive", f"{self.scene.corpus.registry}", "-o", f"{self.path(name)}", *more
        )

    def delta(self) -> None:
        self.package(self.scene.corpus.list_path(_NEW), "delta", "--since", f"{self.path('old')}")

    def new_only(self) -> None:
        self.package(self.new_images(), "new-only")

    def new_images(self) -> Path:
        corpus, path = self.scene.corpus, self.scene.scratch / "new-images.list"
        old = set(corpus.references(_OLD))
        path.write_text("".join(f"{name}\n" for name in corpus.references(_NEW) if name not in old))
        return path

    def prepare(self, name: str) -> None:
        """What is read is in the page cache, and the bundle is not there yet."""
        self.path(name).unlink(missing_ok=True)
        warm(self.scene.corpus.registry / path for path in self.scene.corpus.blobs(_NEW))

    def new_bytes(self) -> int:
        corpus = self.scene.corpus
        new = set(corpus.blobs(_NEW)) - set(corpus.blobs(_OLD))
        return sum((corpus.registry / path).stat().st_size for path in new)

    def join(self) -> None:
        old, delta, joined = map(self.path, ("old", "delta", "joined"))
        self.scene.run_regwrap("join", f"{old}", f"{delta}", "-o", f"{joined}")

    def copy(self) -> None:
        with self.path("copy").open("wb") as out:
            self.scene.shell.run(["cat", f"{self.path('whole')}"], stdout=out)
            os.fsync(out.fileno())

    def prepare_join(self) -> None:
        for name in ("joined", "copy"):
            self.path(name).unlink(missing_ok=True)
        warm(map(self.path, ("old", "delta", "whole")))

    def prove_joined(self) -> None:
        if not filecmp.cmp(self.path("joined"), self.path("whole"), shallow=False):
            raise WrongResultError("join made another file than the vendor has")


def delta_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing_regwrap("tar"):
        return
    releases, corpus = _Releases(scene), scene.corpus
    releases.package(corpus.list_path(_OLD), "old")
    releases.delta()
    yield _since_case(releases)
    releases.package(corpus.list_path(_NEW), "whole")
    yield _join_case(releases)
    for name in ("old", "delta", "new-only", "whole", "joined", "copy"):
        releases.path(name).unlink(missing_ok=True)


def _since_case(releases: _Releases) -> Case:
    scene = releases.scene
    mine = Contender(
        name=_SINCE,
        run=releases.delta,
        prepare=lambda: releases.prepare("delta"),
        watch=Watch(leaves=(releases.path("delta"),)),
    )
    new = Contender(
        name=_NEW_ONLY,
        run=releases.new_only,
        prepare=lambda: releases.prepare("new-only"),
        watch=Watch(leaves=(releases.path("new-only"),)),
    )
    needed = releases.new_bytes() + _link_bytes(releases.path("delta"))
    return Case(
        name="package, a delta",
        note=f"{_NEW} after {_OLD}, with {releases.new_bytes():,} bytes of new blobs. A package of the new images has"
        " all that they need, and only their links.",
        rounds=2 * scene.rounds + 1,
        seconds=30 * scene.scale,
        contenders=(mine, new),
        targets=(
            Target(
                key="delta-bytes", text="a delta: at most 1.02 of the new blobs' bytes plus links",
                contender=_SINCE, metric="disk", unit=needed, limit=1.02,
            ),
            Target(
                key="delta-seconds", text="package --since: no longer than a package of only the new images",
                contender=_SINCE, against=(_NEW_ONLY,), limit=1.0,
            ),
        ),
    )  # fmt: skip


def _link_bytes(bundle: Path) -> int:
    """From the first link to the last, with their headers: the tar's own bytes."""
    with tarfile.open(bundle, "r:") as tar:
        links = [member for member in tar if member.name.endswith("/link")]
    return links[-1].offset_data + tarfile.BLOCKSIZE - links[0].offset


def _join_case(releases: _Releases) -> Case:
    scene = releases.scene
    mine = Contender(
        name=_JOIN,
        run=releases.join,
        prepare=releases.prepare_join,
        prove=releases.prove_joined,
        watch=Watch(leaves=(releases.path("joined"),)),
    )
    cat = replace(mine, name=_CAT, run=releases.copy, prove=lambda: None, watch=Watch(leaves=(releases.path("copy"),)))
    return Case(
        name="join",
        note=f"{_OLD} and the delta to {_NEW} become the whole bundle, with every byte of it hashed.",
        rounds=scene.rounds + 2,
        seconds=60 * scene.scale,
        contenders=(mine, cat),
        targets=(
            Target(
                key="join", text="join: at most 1.15 of cat + fsync of the result",
                contender=_JOIN, against=(_CAT,), limit=1.15,
            ),
        ),
    )  # fmt: skip
