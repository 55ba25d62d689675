"""The n-th failure: each file operation of a scenario, and each start of a program, fails in turn, or is the moment at
which regwrap or its child is killed."""

from collections.abc import Iterator
from typing import Final

from tests.torture.ground import Ground
from tests.torture.judge import CAUSES, Expected, Verdict, judge
from tests.torture.scenarios import BY_NAME, SCENARIOS, Scenario
from tests.torture.tracing import (
    CALLS,
    CREATE,
    READING,
    REMOVING,
    STARTING,
    WRITING,
    Point,
    attached,
    injection,
    points_in,
    was_hit,
)

GROUP: Final = "failure"
_EFFECTS: Final = {
    **dict.fromkeys(WRITING, ("ENOSPC", "EIO", "EDQUOT", "EACCES")),
    **dict.fromkeys(REMOVING, ("EIO", "EACCES")),
    **dict.fromkeys(READING, ("EIO",)),
    **dict.fromkeys(STARTING, ("EACCES", "ENOMEM")),
    "openat": ("EIO", "EACCES", "EMFILE"),
    CREATE: ("ENOSPC", "EIO", "EDQUOT", "EACCES", "EMFILE"),
    "write": ("ENOSPC", "EIO", "EDQUOT"),
    "pwrite64": ("ENOSPC", "EIO", "EDQUOT"),
    "copy_file_range": ("ENOSPC", "EIO", "EDQUOT"),
    "ftruncate": ("EIO",),
    "flock": ("EIO",),
}
_OF_REMOVALS: Final = {*REMOVING, "chmod", "openat", "newfstatat", "getdents64", "read"}
_KILLED_AT: Final = {*WRITING, *REMOVING, CREATE}


def cases(ground: Ground) -> Iterator[tuple[str, str]]:
    """Every moment of every scenario with everything that can happen at it. Counting takes its time: each worker does
    it for some of them."""
    number, workers = ground.part
    wanted = [scenario for scenario in SCENARIOS if not ground.works or scenario.name in ground.works]
    for scenario in wanted[number::workers]:
        for point in counted(ground, scenario):
            for effect in (*_EFFECTS[point.call], *(("KILL",) if point.call in _KILLED_AT else ())):
                yield f"{scenario.name}/{effect}/{point.call}", f"{GROUP}/{scenario.name}/{effect}/{point.name}"


def counted(ground: Ground, scenario: Scenario) -> list[Point]:
    """A run without faults, its system calls counted."""
    log = ground.base / "strace.log"
    log.unlink(missing_ok=True)
    with ground.place(scenario) as place:
        run = place.start(*scenario.args(place), traced=True)
        with attached(run, log, "-y", "-e", f"trace={','.join(CALLS)}"):
            ended = run.ended()
        assert ended.code == 0, (scenario.name, ended)
        return list(points_in(log, place.root))


def run(ground: Ground, name: str) -> Verdict:
    _group, scenario_name, effect, point_name = name.split("/", 3)
    scenario, point = BY_NAME[scenario_name], Point.parse(point_name)
    ground.result_of(scenario)
    log = ground.base / "strace.log"
    log.unlink(missing_ok=True)
    killing = effect == "KILL"
    what = "signal=KILL" if killing else f"error={effect}"
    with ground.place(scenario) as place:
        started = place.start(*scenario.args(place), traced=True)
        with attached(started, log, *injection(point, place.root, what), "-y"):
            ended = started.ended()
        verdict = Verdict(name, hit=was_hit(log, signal=killing))
        own = killing and ended.code == -9
        cause = r"signal 9|killed" if killing else CAUSES[effect]
        # without a path any opening of a file may be meant, that of a directory to be removed too
        untidy = point.call in _OF_REMOVALS or (point.call == CREATE and not point.path)
        nameless = point.call == "newfstatat"  # of an open file: what fails so is no disk
        mute = was_hit(log, of="/said/")
        judge(
            ground,
            scenario,
            place,
            ended,
            verdict,
            Expected(cause, killed=own, untidy=untidy, mute=mute, nameless=nameless),
        )
        return verdict
