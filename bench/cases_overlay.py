"""The package step on an overlay of the history: against the shell flow it comes from, and one trick of it alone."""

import os
import sys
import tarfile
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import storage
from content import blob_of
from measure import Case, Contender, WrongResultError
from scene import Scene, make_empty, prove_storage, split_references
from servers import PROGRAM, served_registry
from shell import ProgramFailedError

_HISTORY: Final = "v1.0"
_RELEASE: Final = "v1.1"
_PEERS: Final = Path(__file__).resolve().parent / "peers"
_TOOLS: Final = ("unshare", "mount", "setpriv", "tar", "skopeo", PROGRAM)
_OLD_REPOSITORIES: Final = 2_000
# With seven layers, a config and one tag a repository is 32 files and directories.
_OLD_BLOBS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """What a contender starts from and where it leaves its bundle."""

    source: str
    history: Path
    work: Path
    bundle: Path


def overlay_cases(scene: Scene) -> Generator[Case, None, None]:
    missing = _why_no_overlay(scene)
    yield from _package_cases(scene, missing)
    yield from _hide_cases(scene, missing)


def _package_cases(scene: Scene, missing: str) -> Generator[Case, None, None]:
    """The history holds the release before; nine tenths of this one are in it."""
    history, work, bundle = (scene.scratch / name for name in ("history", "overlay", "overlay.tar"))
    make_empty(history)
    storage.copy_part(scene.corpus.registry, scene.corpus.blobs(_HISTORY), history)
    with ExitStack() as stack:
        stack.callback(make_empty, history)
        stack.callback(bundle.unlink, missing_ok=True)
        served = (
            "" if scene.missing(PROGRAM) else stack.enter_context(served_registry(scene.shell, scene.corpus.registry))
        )
        ends = _Ends(source=served, history=history, work=work, bundle=bundle)
        yield Case(
            name="package, overlay",
            rounds=scene.rounds,
            target="<= 0.25",
            limit=0.25,
            contenders=(_regwrap(scene, ends), _seed(scene, ends, missing), _selection(scene, ends)),
        )


def _regwrap(scene: Scene, ends: _Ends) -> Contender:
    images = f"{scene.corpus.list_path(_RELEASE)}"
    # fmt: off
    arguments = (
        "package", images, "--source", ends.source, "--history", f"{ends.history}", "--strategy", "overlay",
        "-o", f"{ends.bundle}",
    )
    # fmt: on
    return Contender(
        name="regwrap overlay",
        prepare=lambda: ends.bundle.unlink(missing_ok=True),
        run=lambda: scene.run_regwrap(*arguments),
        prove=lambda: _prove_bundle(scene, ends),
        missing=scene.missing_regwrap("skopeo", PROGRAM),
    )


def _seed(scene: Scene, ends: _Ends, missing: str) -> Contender:
    images = f"{scene.corpus.list_path(_RELEASE)}"
    script = f"{_PEERS / 'seed_overlay.sh'}"
    return Contender(
        name="seed_overlay.sh",
        prepare=lambda: _empty(ends),
        run=lambda: scene.shell.run([script, ends.source, images, f"{ends.history}", f"{ends.work}", f"{ends.bundle}"]),
        prove=lambda: _prove_bundle(scene, ends),
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
        prepare=lambda: ends.bundle.unlink(missing_ok=True),
        run=lambda: scene.run_regwrap(*arguments),
        prove=lambda: _prove_bundle(scene, ends),
        missing=scene.missing_regwrap(),
    )


def _hide_cases(scene: Scene, missing: str) -> Generator[Case, None, None]:
    old, work = scene.scratch / "old", scene.scratch / "hidden"
    make_empty(old)
    _write_old_storage(old, _OLD_REPOSITORIES)
    yield Case(
        name="hide 2,000 repositories",
        rounds=scene.rounds,
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


def _why_no_overlay(scene: Scene) -> str:
    """Only a mount shows whether mounting is allowed here and whether this file system can be written through one."""
    tiny, work = scene.scratch / "tiny", scene.scratch / "trial"
    make_empty(tiny)
    make_empty(work)
    _write_old_storage(tiny, 1)
    try:
        missing = scene.missing(*_TOOLS)
        if not missing:
            _hide_by_opaque(scene, tiny, work)
    except ProgramFailedError as error:
        missing = f"no overlay here: {error}"
    return missing


def _hide_by_opaque(scene: Scene, old: Path, work: Path) -> None:
    """Proves itself: after its end nobody sees its mount."""
    _run_privately(scene, "hide_by_opaque.sh", f"{old}", f"{work}", sys.executable)


def _run_privately(scene: Scene, script: str, *arguments: str) -> None:
    scene.shell.run(["unshare", "--mount", "--propagation", "private", f"{_PEERS / script}", *arguments])


def _write_old_storage(root: Path, repositories: int) -> None:
    storage.add_blob(root, b"old")
    for number in range(repositories):
        name = f"group-{number % 20:02}/app-{number:04}"
        manifest, *blobs = (blob_of(f"{name}/{part}".encode()) for part in range(_OLD_BLOBS + 1))
        storage.link_layers(root, name, blobs)
        storage.link_manifest(root, name, manifest)
        storage.set_tag(root, name, "v0.9", manifest)


def _empty(ends: _Ends) -> None:
    ends.bundle.unlink(missing_ok=True)
    make_empty(ends.work)


def _prove_bundle(scene: Scene, ends: _Ends) -> None:
    """The release and nothing else is in the bundle, and the history is what it was."""
    blobs, tags = _read_bundle(ends.bundle)
    registry = scene.corpus.registry
    if blobs != {path: (registry / path).stat().st_size for path in scene.corpus.blobs(_RELEASE)}:
        raise WrongResultError(f"{ends.bundle.name} has not exactly the blobs of {_RELEASE}")
    pairs = split_references(scene.corpus.references(_RELEASE))
    if tags != {os.fspath(storage.tag_path(*pair)): storage.tag_digest(registry, *pair) for pair in pairs}:
        raise WrongResultError(f"{ends.bundle.name} has not exactly the tags of {_RELEASE}")
    prove_storage(scene.corpus, _HISTORY, ends.history)


def _read_bundle(bundle: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Sizes of all blobs and digests of all tags by path."""
    blobs: dict[str, int] = {}
    tags: dict[str, str] = {}
    with tarfile.open(bundle, "r:") as tar:
        for member in filter(tarfile.TarInfo.isreg, tar):
            if member.name.endswith("/data"):
                blobs[member.name] = member.size
            elif member.name.endswith("/current/link") and (link := tar.extractfile(member)):
                tags[member.name] = link.read().decode()
    return blobs, tags


def _prove_removal(work: Path) -> None:
    whiteouts = sum(path.is_char_device() for path in (work / "upper").rglob("_manifests"))
    if whiteouts != _OLD_REPOSITORIES:
        raise WrongResultError(f"{whiteouts} of {_OLD_REPOSITORIES} repositories are hidden")
