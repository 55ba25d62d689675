"""A bundle into an empty registry: regwrap push against unpacking, serving and `skopeo copy` with eight at a time."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from measure import Case, Contender
from scene import Scene, make_empty, prove_storage
from servers import PROGRAM, served_registry

_RELEASE = "v1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """`source` serves the unpacked bundle, `dest` is empty before each round."""

    bundle: Path
    source: str
    dest: str
    dest_storage: Path


def push_cases(scene: Scene) -> Generator[Case, None, None]:
    missing = scene.missing_regwrap(PROGRAM, "skopeo")
    with _prepared(scene, missing) as ends:
        yield Case(
            name="push, empty registry",
            rounds=scene.rounds,
            target="<= 1.00",
            limit=1.0,
            contenders=(
                Contender(
                    name="regwrap push",
                    prepare=lambda: make_empty(ends.dest_storage),
                    run=lambda: scene.run_regwrap("push", f"{ends.bundle}", ends.dest),
                    prove=lambda: prove_storage(scene.corpus, _RELEASE, ends.dest_storage),
                    missing=missing,
                ),
                Contender(
                    name="xargs -P8 skopeo copy",
                    prepare=lambda: make_empty(ends.dest_storage),
                    run=lambda: _copy_each(scene, ends),
                    prove=lambda: prove_storage(scene.corpus, _RELEASE, ends.dest_storage),
                    missing=missing,
                ),
            ),
        )


@contextlib.contextmanager
def _prepared(scene: Scene, missing: str) -> Generator[_Ends, None, None]:
    bundle, unpacked, dest = scene.scratch / "push.tar", scene.scratch / "unpacked", scene.scratch / "pushed"
    make_empty(unpacked)
    make_empty(dest)
    with contextlib.ExitStack() as stack:
        stack.callback(make_empty, unpacked)
        stack.callback(make_empty, dest)
        stack.callback(bundle.unlink, missing_ok=True)
        if missing:
            yield _Ends(bundle=bundle, source="", dest="", dest_storage=dest)
            return
        images = f"{scene.corpus.list_path(_RELEASE)}"
        scene.run_regwrap("package", images, "--archive", f"{scene.corpus.registry}", "-o", f"{bundle}")
        scene.shell.run(["tar", "-xf", f"{bundle}", "-C", f"{unpacked}"])  # not on the clock
        hosts = [stack.enter_context(served_registry(scene.shell, root)) for root in (unpacked, dest)]
        yield _Ends(bundle=bundle, source=hosts[0], dest=hosts[1], dest_storage=dest)


def _copy_each(scene: Scene, ends: _Ends) -> None:
    # fmt: off
    scene.shell.run([
        "xargs", "-P8", "-I{}", "skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
        "--retry-times", "3", "--src-tls-verify=false", "--dest-tls-verify=false",
        f"docker://{ends.source}/{{}}", f"docker://{ends.dest}/{{}}",
    ], stdin=scene.corpus.list_path(_RELEASE))
    # fmt: on
