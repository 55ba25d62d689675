"""The package step on an overlay of the history: against the shell flow it comes from, and one trick of it alone."""

import sys
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import storage
from content import blob_of
from measure import Case, Contender, Target, WrongResultError
from meter import Watch
from scene import PEERS, Scene, make_empty, prove_bundle, prove_storage, warm
from servers import PROGRAM, Server, served_registry
from shell import ProgramFailedError

_HISTORY: Final = "v1.0"
_RELEASE: Final = "v1.1"
OVERLAY_TOOLS: Final = ("unshare", "mount", "setpriv", "tar", "skopeo", PROGRAM)
_OLD_REPOSITORIES: Final = 200
# With seven layers, a config and one tag a repository is 32 files and directories.
_OLD_BLOBS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """What a contender starts from and where it leaves its bundle."""

    source: Server
    history: Path
    work: Path
    bundle: Path


def overlay_cases(scene: Scene) -> Generator[Case, None, None]:
    missing = why_no_overlay(scene)
    yield from _package_cases(scene, missing)
    yield from _hide_cases(scene, missing)


def _package_cases(scene: Scene, missing: str) -> Generator[Case, None, None]:
    """The history holds the release before; nine tenths of this one are in it."""
    history, work, bundle = (scene.scratch / name for name in ("history", "overlay", "overlay.tar"))
    make_empty(history)
    storage.copy_part(scene.corpus.registry, scene.corpus.blobs(_HISTORY), history)
    if scene.missing(PROGRAM):
        return
    with ExitStack() as stack:
        stack.callback(make_empty, history)
        stack.callback(bundle.unlink, missing_ok=True)
        served = stack.enter_context(served_registry(scene.shell, scene.corpus.registry))
        ends = _Ends(source=served, history=history, work=work, bundle=bundle)
        yield Case(
            name="package on an overlay",
            note="The history holds v1.0, a registry serves v1.1. Selection reads an archive that holds v1.1 already.",
            rounds=scene.rounds,
            seconds=30 * scene.scale,
            contenders=(_regwrap(scene, ends), _seed(scene, ends, missing), _selection(scene, ends)),
            targets=(
                Target(
                    key="overlay", text="package of v1.1 on an overlay of v1.0: at most 0.25 of the seed's shell flow",
                    contender="regwrap overlay", against=("seed_overlay.sh",), limit=0.25,
                ),
            ),
        )  # fmt: skip


def _regwrap(scene: Scene, ends: _Ends) -> Contender:
    images = f"{scene.corpus.list_path(_RELEASE)}"
    # fmt: off
    arguments = (
        "package", images, "--source", ends.source.host, "--history", f"{ends.history}", "--strategy", "overlay",
        "-o", f"{ends.bundle}",
    )
    # fmt: on
    return Contender(
        name="regwrap overlay",
        prepare=lambda: _start_over(scene, ends),
        run=lambda: scene.run_regwrap(*arguments),
        prove=lambda: _prove_bundle(scene, ends),
        watch=Watch(source=ends.source, leaves=(ends.bundle,)),
        missing=scene.missing_regwrap("skopeo", PROGRAM),
    )


def _seed(scene: Scene, ends: _Ends, missing: str) -> Contender:
    images = f"{scene.corpus.list_path(_RELEASE)}"
    script = f"{PEERS / 'seed_overlay.sh'}"
    return Contender(
        name="seed_overlay.sh",
        prepare=lambda: _start_over(scene, ends),
        run=lambda: scene.shell.run(
            [script, ends.source.host, images, f"{ends.history}", f"{ends.work}", f"{ends.bundle}"]
        ),
        prove=lambda: _prove_bundle(scene, ends),
        watch=Watch(source=ends.source, leaves=(ends.bundle,)),
        missing=missing,
    )


def _selection(scene: Scene, ends: _Ends) -> Contender:
    """No source and no overlay: the archive holds everything already."""
    images = f"{scene.corpus.list_path(_RELEASE)}"
    # fmt: off
    arguments = (
        "package", images, "--archive", f"{scene.corpus.registry}", "--strategy", "select",
        "-o", f"{ends.bundle}",
    )
    # fmt: on
    return Contender(
        name="regwrap select",
        prepare=lambda: _start_over(scene, ends),
        run=lambda: scene.run_regwrap(*arguments),
        prove=lambda: _prove_bundle(scene, ends),
        watch=Watch(source=ends.source, leaves=(ends.bundle,)),
        missing=scene.missing_regwrap(),
    )


def _hide_cases(scene: Scene, missing: str) -> Generator[Case, None, None]:
    old, work = scene.scratch / "old", scene.scratch / "hidden"
    make_empty(old)
    _write_old_storage(old, _OLD_REPOSITORIES)
    yield Case(
        name=f"hide {_OLD_REPOSITORIES} repositories",
        note="Below an overlay: an opaque directory made before the mount, against removing each _manifests after it.",
        rounds=scene.rounds,
        seconds=20,
        contenders=(
            Contender(
                name="opaque, then mount",
                prepare=lambda: make_empty(work),
                run=lambda: _hide_by_opaque(scene, old, work),
                missing=missing,
            ),
            Contender(
                name="mount, then rm",
                prepare=lambda: make_empty(work),
                run=lambda: _run_privately(scene, "hide_by_removal.sh", f"{old}", f"{work}"),
                prove=lambda: _prove_removal(work),
                missing=missing,
            ),
        ),
    )
    make_empty(old)
    make_empty(work)


def why_no_overlay(scene: Scene) -> str:
    """Only a mount shows whether mounting is allowed here and whether this file system can be written through one."""
    tiny, work = scene.scratch / "tiny", scene.scratch / "trial"
    make_empty(tiny)
    make_empty(work)
    _write_old_storage(tiny, 1)
    try:
        missing = scene.missing(*OVERLAY_TOOLS)
        if not missing:
            _hide_by_opaque(scene, tiny, work)
    except ProgramFailedError as error:
        missing = f"no overlay here: {error}"
    return missing


def _hide_by_opaque(scene: Scene, old: Path, work: Path) -> None:
    """Proves itself: after its end nobody sees its mount."""
    _run_privately(scene, "hide_by_opaque.sh", f"{old}", f"{work}", sys.executable)


def _run_privately(scene: Scene, script: str, *arguments: str) -> None:
    scene.shell.run(["unshare", "--mount", "--propagation", "private", f"{PEERS / script}", *arguments])


def _write_old_storage(root: Path, repositories: int) -> None:
    storage.add_blob(root, b"old")
    for number in range(repositories):
        name = f"group-{number % 20:02}/app-{number:04}"
        manifest, *blobs = (blob_of(f"{name}/{part}".encode()) for part in range(_OLD_BLOBS + 1))
        storage.link_layers(root, name, blobs)
        storage.link_manifest(root, name, manifest)
        storage.set_tag(root, name, "v0.9", manifest)


def _start_over(scene: Scene, ends: _Ends) -> None:
    ends.bundle.unlink(missing_ok=True)
    make_empty(ends.work)
    warm(ends.history / path for path in scene.corpus.blobs(_HISTORY))
    warm(scene.corpus.registry / path for path in scene.corpus.blobs(_RELEASE))


def _prove_bundle(scene: Scene, ends: _Ends) -> None:
    """The release and nothing else is in the bundle, and the history is what it was."""
    prove_bundle(scene.corpus, _RELEASE, ends.bundle)
    prove_storage(scene.corpus, _HISTORY, ends.history)


def _prove_removal(work: Path) -> None:
    whiteouts = sum(path.is_char_device() for path in (work / "upper").rglob("_manifests"))
    if whiteouts != _OLD_REPOSITORIES:
        raise WrongResultError(f"{whiteouts} of {_OLD_REPOSITORIES} repositories are hidden")
