"""Programs that go wrong: the k-th start of each is killed, hangs, fails, or ends with exit code 0 and nothing done.

A wrapper of the program's name stands first on PATH: the seam at which regwrap itself chooses its programs.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.torture.ground import Ground
from tests.torture.judge import Expected, Verdict, judge
from tests.torture.scenarios import BY_NAME, SCENARIOS

GROUP: Final = "child"
_STARTS: Final = {
    "skopeo": range(1, 6), "curl": range(1, 3), "tar": (1,), "docker-registry": (1,), "unshare": range(1, 3),
    "mount": range(1, 3), "umoci": range(1, 5),
}  # fmt: skip
_ACTIONS: Final = {
    "killed": "kill -9 $$",
    "killed-late": '"$real" "$@" & child=$!; sleep 0.0$delay; kill -9 $child 2>/dev/null; kill -9 $$',
    # the trial of an overlay has its minute, which is too long here
    "hangs": "exec sleep 1000",
    "nothing": "exit 0",
    "fails": "echo 'level=fatal msg=\"injected failure\"' >&2; exit 1",
    "garbage": "echo garbage; exit 0",
}
_CAUSES: Final = {
    "killed": r"signal 9|killed|ended by itself|exit code 137",
    "killed-late": r"signal 9|killed|ended by itself|exit code 137",
    "hangs": r"no progress|not done after|did not|no answer|timed out",
    "fails": r"injected failure",
}
_WRAPPER: Final = """#!/bin/sh
# starts may come at the same time: a directory can be made by one of them only
real={real}
delay={delay}
number=1
while ! mkdir "{counter}/$number" 2>/dev/null; do number=$((number + 1)); done
if [ "$number" = {start} ] || [ {start} = all ]; then {action}; fi
exec "$real" "$@"
"""


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    """Each program of each scenario, at each of its first starts and at all of them."""
    for scenario in SCENARIOS:
        for program in scenario.children:
            for action in _ACTIONS:
                if action == "hangs" and program in {"unshare", "mount"}:
                    continue
                for start in (*_STARTS[program], "all"):
                    yield f"{scenario.name}/{program}", f"{GROUP}/{scenario.name}/{program}/{action}/{start}"


def run(ground: Ground, name: str) -> Verdict:
    _group, scenario_name, program, action, start = name.split("/")
    scenario = BY_NAME[scenario_name]
    ground.result_of(scenario)
    with ground.place(scenario) as place:
        wrappers, counter = ground.base / "wrappers", ground.base / "starts"
        for directory in (wrappers, counter):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        real = shutil.which(program, path=f"{place.environment['PATH']}:/usr/sbin:/sbin")
        wrapper = wrappers / program
        wrapper.write_text(
            _WRAPPER.format(
                real=real, counter=counter, start=start, action=_ACTIONS[action], delay=len(name) % 9 + 1
            )
        )  # fmt: skip
        wrapper.chmod(0o755)
        usual = place.environment["PATH"]
        place.environment["PATH"] = f"{wrappers}:{usual}"
        place.hasty = action == "hangs"
        place.configure()
        ended = place.start(*scenario.args(place)).ended()
        place.environment["PATH"] = usual
        place.hasty = False
        place.configure()
        hit = any(counter.iterdir()) if start == "all" else Path(counter, start).exists()
        verdict = Verdict(name, hit=hit)
        judge(ground, scenario, place, ended, verdict, Expected(cause=_CAUSES.get(action, "")))
        return verdict
