"""The same work by the regwrap of another checkout, in the same rounds: what a change costs or brings."""

from dataclasses import replace

from measure import Case, Contender, Target
from scene import Scene

_SUFFIX = " (before)"
# what an hour of noise on a shared machine leaves between two equal programs, in so many times the rounds
_SAME = 1.05
_ROUNDS = 3


def with_before(scene: Scene, case: Case) -> Case:
    """The case with a second contender for each that runs regwrap, and with a target for the pair."""
    if not scene.before:
        return case
    pairs = [(mine, _twin(scene, mine)) for mine in case.contenders if mine.name.startswith("regwrap ")]
    targets = tuple(_target(mine, metric) for mine, _ in pairs for metric in ("seconds", "cpu"))
    return replace(
        case,
        contenders=(*case.contenders, *(twin for _, twin in pairs)),
        targets=(*case.targets, *targets),
        rounds=case.rounds * _ROUNDS,
        seconds=case.seconds * _ROUNDS,
    )


def _twin(scene: Scene, mine: Contender) -> Contender:
    def run() -> None:
        with scene.shell.instead(scene.regwrap[0], scene.before[0]):
            mine.run()

    return replace(mine, name=f"{mine.name}{_SUFFIX}", run=run)


def _target(mine: Contender, metric: str) -> Target:
    at = "" if mine.x is None else f"@{mine.x}"
    return Target(
        key=f"before-{metric}", text=f"{mine.name}{at}, {metric}: at most {_SAME} of the commit before",
        contender=f"{mine.name}{at}", against=(f"{mine.name}{_SUFFIX}{at}",), metric=metric, limit=_SAME,
    )  # fmt: skip
