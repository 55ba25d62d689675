"""Medians, ratios with their confidence interval, slopes. Own code: it is short, and a reader can check it."""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_RESAMPLES: Final = 2000
_TAIL: Final = 0.025


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two medians; in 95 of 100 resamples of both it lies between `low` and `high`."""

    value: float
    low: float
    high: float


def ratio_of(mine: Sequence[float], other: Sequence[float]) -> Ratio:
    """Bootstrap: both sides are drawn again with replacement. The same figures give the same interval."""
    chance = random.Random(1)
    drawn = sorted(_median_again(chance, mine) / _median_again(chance, other) for _ in range(_RESAMPLES))
    edge = int(_RESAMPLES * _TAIL)
    return Ratio(statistics.median(mine) / statistics.median(other), drawn[edge], drawn[-1 - edge])


def worst_of(mine: Sequence[float], other: Sequence[float]) -> float:
    """The largest ratio of one round; where the other had fewer, to its median."""
    if len(mine) == len(other):
        return max(a / b for a, b in zip(mine, other, strict=True))
    return max(mine) / statistics.median(other)


def _median_again(chance: random.Random, values: Sequence[float]) -> float:
    return statistics.median(chance.choices(values, k=len(values)))


def slope_of(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares: what one more of x costs, and what is there at 0."""
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return slope, intercept


def exponent_of(points: Sequence[tuple[float, float]]) -> float:
    """y grows as x to the power of this, between the ends; 1 is linear, 0 is constant."""
    (x1, y1), (x2, y2) = points[0], points[-1]
    return math.log(y2 / y1) / math.log(x2 / x1)
