"""python -m tests.torture: the fault campaign.

--seconds N     how long it may take (600)       --seed N      which of the faults, and in which order
--case NAME     only this case, with all it says --groups A,B  only these groups
--works A,B     only what is worked on so, in them: deploy-pipe, sync
--table         print results/torture.json as a Markdown table
"""

import argparse
import sys
from pathlib import Path

from tests.inherited import hear_signals
from tests.torture import campaign, table

RESULTS = Path("results/torture.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--groups", default=",".join(campaign.GROUPS))
    parser.add_argument("--works", default="")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    hear_signals()
    if options.table:
        sys.stdout.write(table.markdown(table.read(RESULTS)))
        return 0
    order = campaign.Order(
        seconds=options.seconds,
        seed=campaign.new_seed() if options.seed is None else options.seed,
        groups=tuple(options.groups.split(",")),
        works=tuple(filter(None, options.works.split(","))),
        cases=tuple(options.case),
        workers=min(options.workers, len(options.case) or options.workers),
    )
    if options.worker is not None:
        return campaign.work(order, options.worker)
    return table.report(order, campaign.verdicts(order), RESULTS)


if __name__ == "__main__":
    sys.exit(main())
