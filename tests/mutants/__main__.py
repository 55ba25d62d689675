"""python -m tests.mutants: changes the code at one place in memory, and sees whether a unit test fails.

--modules "A B" rooms or modules (storage, bundle/read); the default is all that decides about data
--count N       how many mutants, drawn at random (100)   --seed N      which ones
--seconds N     begin no new one after that many          --each N         CPU seconds of tests a mutant (30)
--mutant NAME   only this one, by the name that was printed: ROOM/MODULE.py:LINE:NUMBER
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path
from typing import Final

from tests.mutants.choice import all_mutants, chosen_modules, drawn, trial_of
from tests.mutants.equivalent import key_of, read_equivalents
from tests.mutants.suite import BrokenSuiteError, Ground, suite_of
from tests.mutants.table import Results, say
from tests.mutants.trial import Outcome, Trial, try_all

ROOMS: Final = "storage bundle forms transfer registry lists core"
_FOREVER: Final = 10**9


def main() -> int:
    options = _options()
    ground = Ground(Path.cwd(), options.package, options.tests)
    sys.path.insert(0, str(ground.root))
    sys.dont_write_bytecode = True
    try:
        return _run(options, ground)
    except BrokenSuiteError as error:
        say(f"mutants: {error}")
        return 2


def _run(options: argparse.Namespace, ground: Ground) -> int:
    suite = suite_of(ground, workers=options.workers, say=say)
    mutants = all_mutants(ground, chosen_modules(ground, options.modules.replace(",", " ").split()))
    chosen = drawn(mutants, count=options.count, seed=options.seed)
    if options.mutant:
        chosen = [mutant for mutant in mutants if mutant.name in options.mutant]
    say(f"seed {options.seed}: {len(chosen)} of {len(mutants)} mutants")
    results = Results(_command(options, len(chosen)))
    equivalent = {key for each in read_equivalents() for key in each.keys}
    trials: list[Trial] = []
    for mutant in chosen:
        trial = trial_of(mutant, ground, suite, most=options.each)
        if key_of(mutant) in equivalent and not options.mutant:
            results.add_equivalent(mutant)
        elif not trial.tests:
            results.add(trial, Outcome.NOT_RUN, 0)
        else:
            trials.append(trial)
    deadline = time.monotonic() + options.seconds
    try_all(ground, trials, workers=options.workers, deadline=deadline, told=results.add)
    results.write(ground.root / "results/mutants.json")
    sys.stdout.write(results.markdown())
    return 1 if results.lived else 0


def _command(options: argparse.Namespace, count: int) -> str:
    """What repeats this run."""
    modules = "" if options.modules == ROOMS else f'MODULES="{options.modules}" '
    return f"make mutants {modules}COUNT={count} SEED={options.seed}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", usage=__doc__)
    parser.add_argument("--modules", default=ROOMS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=_FOREVER)
    parser.add_argument("--each", type=float, default=30)
    parser.add_argument("--mutant", action="append", default=[])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--package", default="regwrap", help=argparse.SUPPRESS)
    parser.add_argument("--tests", default="tests/unit", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
