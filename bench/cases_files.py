"""Bundles as files: package, deploy and verify against what merely moving the bytes costs."""

import os
from collections.abc import Generator
from pathlib import Path

from measure import Case, Contender, WrongResultError
from scene import Scene, make_empty, prove_blobs, prove_storage
from shell import ProgramFailedError

_RELEASE = "v1.0"


def package_cases(scene: Scene) -> Generator[Case, None, None]:
    bundle, joined = scene.scratch / "release.tar", scene.scratch / "joined"
    names = _blob_names(scene)
    _warm(scene, names)
    yield Case(
        name="package",
        rounds=scene.rounds,
        target="<= 1.30",
        limit=1.3,
        contenders=(
            Contender(
                name="regwrap package",
                prepare=lambda: bundle.unlink(missing_ok=True),
                run=lambda: _package(scene, bundle),
                prove=lambda: _prove_size(scene, bundle),
                missing=scene.missing_regwrap(),
            ),
            Contender(
                name="cat + fsync",
                prepare=lambda: joined.unlink(missing_ok=True),
                run=lambda: _join(scene, names, joined),
                prove=lambda: _prove_size(scene, joined),
            ),
        ),
    )
    bundle.unlink(missing_ok=True)
    joined.unlink(missing_ok=True)


def unpack_cases(scene: Scene) -> Generator[Case, None, None]:
    bundle = scene.scratch / "release.tar"
    missing = _make_bundle(scene, bundle)
    yield _deploy_case(scene, bundle, missing)
    yield _verify_case(scene, bundle, missing)
    bundle.unlink(missing_ok=True)


def _deploy_case(scene: Scene, bundle: Path, missing: str) -> Case:
    deployed, extracted = scene.scratch / "deployed", scene.scratch / "extracted"
    return Case(
        name="deploy, empty directory",
        rounds=scene.rounds,
        contenders=(
            Contender(
                name="regwrap deploy + sync",
                prepare=lambda: _empty_both(deployed, extracted),
                run=lambda: _deploy(scene, bundle, deployed),
                prove=lambda: prove_storage(scene.corpus, _RELEASE, deployed),
                missing=missing,
            ),
            Contender(
                name="tar xf + sync",
                prepare=lambda: _empty_both(deployed, extracted),
                run=lambda: _extract(scene, bundle, extracted),
                prove=lambda: prove_blobs(scene.corpus, _RELEASE, extracted),
            ),
        ),
    )


def _verify_case(scene: Scene, bundle: Path, missing: str) -> Case:
    return Case(
        name="verify",
        rounds=scene.rounds,
        contenders=(
            Contender(
                name="regwrap verify",
                run=lambda: scene.run_regwrap("verify", f"{bundle}"),
                missing=missing,
            ),
            Contender(name="cat to /dev/null", run=lambda: _read(scene, bundle)),
            Contender(
                name="openssl sha256",
                run=lambda: scene.shell.run(["openssl", "dgst", "-sha256", f"{bundle}"]),
                missing=scene.missing("openssl"),
            ),
        ),
    )


def _package(scene: Scene, bundle: Path) -> None:
    images = f"{scene.corpus.list_path(_RELEASE)}"
    scene.run_regwrap("package", images, "--archive", f"{scene.corpus.registry}", "-o", f"{bundle}")


def _join(scene: Scene, names: Path, joined: Path) -> None:
    with joined.open("wb") as out:
        scene.shell.run(["xargs", "-0", "cat"], cwd=scene.corpus.registry, stdin=names, stdout=out)
        os.fsync(out.fileno())


def _deploy(scene: Scene, bundle: Path, directory: Path) -> None:
    scene.run_regwrap("deploy", f"{bundle}", f"{directory}")
    scene.shell.run(["sync", "-f", f"{directory}"])


def _extract(scene: Scene, bundle: Path, directory: Path) -> None:
    scene.shell.run(["tar", "-xf", f"{bundle}", "-C", f"{directory}"])
    scene.shell.run(["sync", "-f", f"{directory}"])


def _read(scene: Scene, bundle: Path) -> None:
    with Path(os.devnull).open("wb") as out:
        scene.shell.run(["cat", f"{bundle}"], stdout=out)


def _make_bundle(scene: Scene, bundle: Path) -> str:
    """Why regwrap has no bundle to work on, if so: the others then get a plain tar of the blobs."""
    missing = scene.missing_regwrap()
    if not missing:
        try:
            _package(scene, bundle)
        except ProgramFailedError as error:
            missing = f"no bundle: {error}"
    if missing:
        _pack_plainly(scene, bundle)
    return missing


def _pack_plainly(scene: Scene, bundle: Path) -> None:
    names = _blob_names(scene)
    # fmt: off
    scene.shell.run([
        "tar", "-cf", f"{bundle}", "-b", "128", "-C", f"{scene.corpus.registry}",
        "--null", "--verbatim-files-from", "-T", f"{names}",
    ])
    # fmt: on


def _blob_names(scene: Scene) -> Path:
    path = scene.scratch / "blob-names"
    path.write_text("".join(f"{name}\0" for name in scene.corpus.blobs(_RELEASE)))
    return path


def _warm(scene: Scene, names: Path) -> None:
    """A corpus of yesterday is not in the page cache; the first contender must not pay for it."""
    with Path(os.devnull).open("wb") as out:
        scene.shell.run(["xargs", "-0", "cat"], cwd=scene.corpus.registry, stdin=names, stdout=out)


def _empty_both(*directories: Path) -> None:
    for directory in directories:
        make_empty(directory)


def _prove_size(scene: Scene, path: Path) -> None:
    wanted = sum((scene.corpus.registry / name).stat().st_size for name in scene.corpus.blobs(_RELEASE))
    if path.stat().st_size < wanted:
        raise WrongResultError(f"{path.name} is smaller than the blobs of the list")
