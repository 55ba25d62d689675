"""An unchanged sync from a registry that is far away, each request 20 ms: regwrap against `skopeo sync`."""

import contextlib
from collections.abc import Generator
from dataclasses import replace
from typing import Final

from cases_sync import served_ends, sync_contenders
from measure import Case, Contender, WrongResultError
from scene import Scene
from servers import delayed_registry

_RELEASE: Final = "v1.0"
_SECONDS: Final = 0.02


def latency_cases(scene: Scene) -> Generator[Case, None, None]:
    with served_ends(scene) as ends, contextlib.ExitStack() as stack:
        far = stack.enter_context(delayed_registry(ends.source, _SECONDS)) if ends.source else ""
        near = sync_contenders(scene, ends, _RELEASE)
        distant = sync_contenders(scene, replace(ends, source=far), _RELEASE)
        yield Case(
            name="unchanged, 20 ms away",
            rounds=scene.rounds,
            target="<= 0.25",
            limit=0.25,
            contenders=tuple(_warm(x, y) for x, y in zip(near, distant, strict=True)),
        )


def _warm(near: Contender, distant: Contender) -> Contender:
    """Before the clock starts everything is there, brought without the delay."""

    def prepare() -> None:
        try:
            near.prove()
        except WrongResultError:
            near.run()

    return replace(distant, prepare=prepare)
