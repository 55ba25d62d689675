"""What a start costs before anything is done: seconds of CPU, against Python and typer alone."""

import resource
from collections.abc import Generator
from pathlib import Path
from typing import Final

from measure import Case, Contender
from scene import Scene

_ROUNDS: Final = 20


def startup_cases(scene: Scene) -> Generator[Case, None, None]:
    python = f"{Path(scene.regwrap[0]).with_name('python')}"
    yield Case(
        name="start-up, CPU",
        rounds=_ROUNDS,
        target="0.15 s",
        contenders=(
            *(_contender(f"regwrap {option}", scene, [*scene.regwrap, option]) for option in ("--version", "--help")),
            _contender("python: import typer", scene, [python, "-c", "import typer"]),
            _contender("python: nothing", scene, [python, "-c", "pass"]),
        ),
    )


def _contender(name: str, scene: Scene, argv: list[str]) -> Contender:
    return Contender(name=name, run=lambda: scene.shell.run(argv), clock=_children_cpu, missing=scene.missing(argv[0]))


def _children_cpu() -> float:
    """Of all children that have ended, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
