"""Deploy and verify of a bundle, against what merely moving or reading its bytes costs."""

import os
import shutil
from collections.abc import Generator
from pathlib import Path
from typing import Final

from measure import Case, Contender, Target
from meter import Watch
from scene import PEERS, Scene, chill, prove_blobs, prove_storage, warm

_RELEASE: Final = "v1.0"
_DEPLOY: Final = "regwrap deploy + sync"
_VERIFY: Final = "regwrap verify"
_HASH: Final = "sha256, all cores"


def unpack_cases(scene: Scene) -> Generator[Case, None, None]:
    if scene.missing_regwrap("tar"):
        return
    bundle = scene.scratch / "release.tar"
    images = f"{scene.corpus.list_path(_RELEASE)}"
    scene.run_regwrap("package", images, "--archive", f"{scene.corpus.registry}", "-o", f"{bundle}")
    yield _deploy_case(scene, bundle)
    yield _verify_cold_case(scene, bundle)
    yield _verify_warm_case(scene, bundle)
    bundle.unlink(missing_ok=True)


def _deploy_case(scene: Scene, bundle: Path) -> Case:
    deployed, extracted = scene.scratch / "deployed", scene.scratch / "extracted"

    def empty() -> None:
        for directory in (deployed, extracted):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        warm([bundle])

    return Case(
        name="deploy, empty directory",
        note="With every byte hashed. Files and directories are what takes the time: see the machine's notes.",
        rounds=scene.rounds,
        seconds=25 * scene.scale,
        contenders=(
            Contender(
                name=_DEPLOY,
                prepare=empty,
                run=lambda: _deploy(scene, bundle, deployed),
                prove=lambda: prove_storage(scene.corpus, _RELEASE, deployed),
                watch=Watch(leaves=(deployed,)),
            ),
            Contender(
                name="tar xf + sync",
                prepare=empty,
                run=lambda: _extract(scene, bundle, extracted),
                prove=lambda: prove_blobs(scene.corpus, _RELEASE, extracted),
                watch=Watch(leaves=(extracted,)),
            ),
        ),
        targets=(
            Target(
                key="deploy", text="deploy with full verification: at most 1.25 of tar xf + sync",
                contender=_DEPLOY, against=("tar xf + sync",), limit=1.25,
            ),
        ),
    )  # fmt: skip


def _verify_cold_case(scene: Scene, bundle: Path) -> Case:
    return Case(
        name="verify, cold cache",
        rounds=scene.rounds + 2,
        seconds=30 * scene.scale,
        contenders=(
            Contender(name=_VERIFY, prepare=lambda: chill(bundle), run=lambda: _verify(scene, bundle)),
            Contender(name="cat >/dev/null", prepare=lambda: chill(bundle), run=lambda: _read(scene, bundle)),
            Contender(name=_HASH, prepare=lambda: chill(bundle), run=lambda: _hash(scene, bundle)),
        ),
        targets=(
            Target(
                key="verify-cold", text="verify, cold cache: at most 1.15 of reading once, or of hashing on all cores",
                contender=_VERIFY, against=(_HASH,), limit=1.15,
            ),
        ),
    )  # fmt: skip


def _verify_warm_case(scene: Scene, bundle: Path) -> Case:
    return Case(
        name="verify, warm cache",
        rounds=scene.rounds + 2,
        seconds=30 * scene.scale,
        contenders=(
            Contender(name=_VERIFY, prepare=lambda: warm([bundle]), run=lambda: _verify(scene, bundle)),
            Contender(name=_HASH, prepare=lambda: warm([bundle]), run=lambda: _hash(scene, bundle)),
            Contender(
                name="openssl dgst -sha256",
                prepare=lambda: warm([bundle]),
                run=lambda: scene.shell.run(["openssl", "dgst", "-sha256", f"{bundle}"]),
                missing=scene.missing("openssl"),
            ),
        ),
        targets=(
            Target(
                key="verify-warm", text="verify, warm cache: at most 1.1 of sha256 of the bundle on all cores",
                contender=_VERIFY, against=(_HASH,), limit=1.1,
            ),
        ),
    )  # fmt: skip


def _deploy(scene: Scene, bundle: Path, directory: Path) -> None:
    scene.run_regwrap("deploy", f"{bundle}", f"{directory}")
    scene.shell.run(["sync", "-f", f"{directory}"])


def _extract(scene: Scene, bundle: Path, directory: Path) -> None:
    scene.shell.run(["tar", "-xf", f"{bundle}", "-C", f"{directory}"])
    scene.shell.run(["sync", "-f", f"{directory}"])


def _verify(scene: Scene, bundle: Path) -> None:
    scene.run_regwrap("verify", f"{bundle}")


def _hash(scene: Scene, bundle: Path) -> None:
    scene.shell.run(["python3", f"{PEERS / 'hash_all_cores.py'}", f"{bundle}"])


def _read(scene: Scene, bundle: Path) -> None:
    with Path(os.devnull).open("wb") as out:
        scene.shell.run(["cat", f"{bundle}"], stdout=out)
