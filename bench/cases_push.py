"""A bundle into an empty registry: regwrap push against unpacking, serving and `skopeo copy` with eight at a time."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from corpus import Corpus
from measure import Case, Contender, Target
from meter import Watch
from scene import Scene, make_empty, prove_storage
from servers import PROGRAM, Server, served_registry

_RELEASE = "v1.0"
_BARE = "bare push"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """`source` serves the unpacked bundle, `dest` is empty before each round."""

    bundle: Path
    source: Server
    dest: Server
    dest_storage: Path


def push_cases(scene: Scene) -> Generator[Case, None, None]:
    missing = scene.missing_regwrap(PROGRAM, "skopeo")
    if missing:
        return
    if scene.whole:
        corpus = scene.corpus
    else:
        corpus = scene.other_corpus("small", max(10, round(46 * scene.scale)), int(5e8 * scene.scale))
    with _prepared(scene, corpus) as ends:
        watch = Watch(dest=ends.dest, leaves=(ends.dest_storage,))
        mine = Contender(
            name="regwrap push",
            prepare=lambda: make_empty(ends.dest_storage),
            run=lambda: scene.run_regwrap("push", f"{ends.bundle}", ends.dest.host),
            prove=lambda: prove_storage(corpus, _RELEASE, ends.dest_storage),
            watch=watch,
        )
        peer = "xargs -P8 skopeo copy"
        words = (ends.source.host, ends.dest.host, corpus.list_path(_RELEASE), 8)
        bare = scene.bare("push", ends.bundle, corpus.list_path(_RELEASE), ends.dest.host)
        yield Case(
            name="push, empty registry",
            note="From the tar; skopeo copies from docker-registry on the unpacked bundle."
            f" {len(corpus.references(_RELEASE))} images, {corpus.unique_bytes(_RELEASE):,} unique bytes.",
            rounds=scene.rounds,
            seconds=(100 if scene.whole else 25) * scene.scale,
            contenders=(
                mine,
                replace(mine, name=peer, run=lambda: scene.run_peer("skopeo_copy.sh", *words)),
                replace(mine, name=_BARE, run=bare),
            ),
            targets=(
                Target(key="push", text="push into an empty registry: at most 1.0 of eight skopeo at a time",
                       contender="regwrap push", against=(peer,), limit=1.0),
                Target(key="push-bare", text="the same: at most 1.25 of each unique blob's PUT, links and manifests",
                       contender="regwrap push", against=(_BARE,), limit=1.25),
            ),
        )  # fmt: skip


@contextlib.contextmanager
def _prepared(scene: Scene, corpus: Corpus) -> Generator[_Ends, None, None]:
    bundle, unpacked, dest = scene.scratch / "push.tar", scene.scratch / "unpacked", scene.scratch / "pushed"
    make_empty(unpacked)
    make_empty(dest)
    with contextlib.ExitStack() as stack:
        stack.callback(make_empty, unpacked)
        stack.callback(make_empty, dest)
        stack.callback(bundle.unlink, missing_ok=True)
        images = f"{corpus.list_path(_RELEASE)}"
        scene.run_regwrap("package", images, "--archive", f"{corpus.registry}", "-o", f"{bundle}")
        scene.shell.run(["tar", "-xf", f"{bundle}", "-C", f"{unpacked}"])  # not on the clock
        servers = [stack.enter_context(served_registry(scene.shell, root)) for root in (unpacked, dest)]
        yield _Ends(bundle=bundle, source=servers[0], dest=servers[1], dest_storage=dest)
