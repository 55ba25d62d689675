"""Regwrap itself is interrupted, or killed, at a moment of its run."""

import signal
from collections.abc import Iterator
from typing import Final

from tests.torture.ground import Ground
from tests.torture.judge import Expected, Verdict, judge
from tests.torture.scenarios import BY_NAME, SCENARIOS

GROUP: Final = "kill"
_SIGNALS: Final = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
_MOMENTS: Final = tuple(range(2, 100, 3))


def cases(_ground: Ground) -> Iterator[tuple[str, str]]:
    """Moments as hundredths of the time that the work takes."""
    for scenario in SCENARIOS:
        for name in _SIGNALS:
            for moment in _MOMENTS:
                yield f"{scenario.name}/{name}", f"{GROUP}/{scenario.name}/{name}/{moment}"


def run(ground: Ground, name: str) -> Verdict:
    _group, scenario_name, signal_name, hundredths = name.split("/")
    scenario, number = BY_NAME[scenario_name], signal.Signals[signal_name]
    moment = ground.moment(scenario, int(hundredths))
    with ground.place(scenario) as place:
        started = place.start(*scenario.args(place))
        hit = not started.ends_within(moment)
        started.send(number)
        ended = started.ended()
        verdict = Verdict(name, hit=hit and ended.code != 0)
        killed = ended.code is not None and ended.code < 0  # before its handlers were there, or by SIGKILL
        if hit and not killed and ended.code not in {0, 128 + number}:
            verdict.lies.append(f"exit code {ended.code} after {signal_name}")
        expected = Expected(cause=rf"interrupted \({signal_name}\)" if not killed else "", killed=killed)
        judge(ground, scenario, place, ended, verdict, expected)
        return verdict
