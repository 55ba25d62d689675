"""Sync of a list from one registry into an archive: regwrap against `skopeo sync`."""

import contextlib
import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from measure import Case, Contender
from scene import Scene, make_empty, prove_storage, split_references
from servers import PROGRAM, served_registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where the images come from, and the places the two contenders bring them to."""

    source: str
    archive: Path
    dest: str
    dest_storage: Path


def sync_cases(scene: Scene) -> Generator[Case, None, None]:
    """Each case starts from what the one before has left, so the order matters."""
    with served_ends(scene) as ends:
        yield _cold_case(scene, ends)
        again = _warm_case(scene, ends, "v1.0")
        yield replace(again, name="sync again", rounds=scene.rounds, target="< 1.00", limit=1.0)
        yield replace(_warm_case(scene, ends, "v1.1"), name="sync, a tenth changed")


@contextlib.contextmanager
def served_ends(scene: Scene) -> Iterator[Ends]:
    """Without docker-registry there are no addresses, and every contender says what is missing."""
    archive, dest = scene.scratch / "archive", scene.scratch / "skopeo-dest"
    make_empty(dest)
    with contextlib.ExitStack() as stack:
        stack.callback(make_empty, archive)
        stack.callback(make_empty, dest)
        served = [
            "" if scene.missing(PROGRAM) else stack.enter_context(served_registry(scene.shell, storage))
            for storage in (scene.corpus.registry, dest)
        ]
        yield Ends(source=served[0], archive=archive, dest=served[1], dest_storage=dest)


def _cold_case(scene: Scene, ends: Ends) -> Case:
    regwrap, skopeo = sync_contenders(scene, ends, "v1.0")
    return Case(
        name="sync, empty archive",
        rounds=scene.cold_rounds,
        contenders=(
            replace(regwrap, prepare=lambda: make_empty(ends.archive)),
            replace(skopeo, prepare=lambda: make_empty(ends.dest_storage)),
        ),
    )


def _warm_case(scene: Scene, ends: Ends, release: str) -> Case:
    """Only to be run on what holds v1.0 already: that is proved before the clock starts."""
    before = sync_contenders(scene, ends, "v1.0")
    now = sync_contenders(scene, ends, release)
    contenders = tuple(replace(y, prepare=x.prove) for x, y in zip(before, now, strict=True))
    return Case(name=release, contenders=contenders, rounds=1)


def sync_contenders(scene: Scene, ends: Ends, release: str) -> tuple[Contender, Contender]:
    corpus = scene.corpus
    regwrap = Contender(
        name="regwrap sync",
        run=lambda: _regwrap_sync(scene, ends, release),
        prove=lambda: prove_storage(corpus, release, ends.archive),
        missing=scene.missing_regwrap(PROGRAM),
    )
    skopeo = Contender(
        name="skopeo sync",
        run=lambda: _skopeo_sync(scene, ends, release),
        prove=lambda: prove_storage(corpus, release, ends.dest_storage, scoped=False),
        missing=scene.missing("skopeo", PROGRAM),
    )
    return regwrap, skopeo


def _regwrap_sync(scene: Scene, ends: Ends, release: str) -> None:
    images = f"{scene.corpus.list_path(release)}"
    scene.run_regwrap("sync", images, "--source", ends.source, "--archive", f"{ends.archive}")


def _skopeo_sync(scene: Scene, ends: Ends, release: str) -> None:
    images = scene.shell.home / "skopeo-sync.yaml"
    images.write_text(json.dumps(_sync_source(scene, ends, release)))
    # fmt: off
    scene.shell.run([
        "skopeo", "--insecure-policy", "--registries-conf", os.devnull, "sync",
        "--src", "yaml", "--dest", "docker", "--all", "--preserve-digests",
        "--dest-tls-verify=false", f"{images}", ends.dest,
    ])
    # fmt: on


def _sync_source(scene: Scene, ends: Ends, release: str) -> dict[str, object]:
    pairs = split_references(scene.corpus.references(release))
    images = {repository: [tag] for repository, tag in pairs}
    return {ends.source: {"tls-verify": False, "images": images}}
