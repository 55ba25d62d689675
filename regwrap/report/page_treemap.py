"""Areas in proportion to sizes, as square as can be (Bruls, Huizing, van Wijk: Squarified Treemaps). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Box:
    """In the unit of the box that was divided."""

    x: float
    y: float
    width: float
    height: float


def squarified(sizes: Sequence[int], box: Box) -> list[Box]:
    """A part of `box` for each size, in the same order. Sizes are positive and fall; their parts fill `box`."""
    total = sum(sizes)
    if not total:
        return []
    areas = [size * box.width * box.height / total for size in sizes]
    parts: list[Box] = []
    rest, start = box, 0
    while start < len(areas):
        end = _row_end(areas, start, min(rest.width, rest.height))
        row, rest = _cut(rest, areas[start:end])
        parts += row
        start = end
    return parts


def _row_end(areas: Sequence[float], start: int, side: float) -> int:
    """Where the row ends that begins at `start`: one more part would make its worst one longer."""
    total = areas[start]
    worst = _worst(total, areas[start], areas[start], side)
    for end in range(start + 1, len(areas)):
        more = total + areas[end]
        longer = _worst(more, areas[start], areas[end], side)
        if longer > worst:
            return end
        total, worst = more, longer
    return len(areas)


def _worst(total: float, largest: float, smallest: float, side: float) -> float:
    """The greatest ratio of two sides among the parts of a row."""
    if not total or not smallest or not side:
        return float("inf")
    return max(side * side * largest / (total * total), total * total / (side * side * smallest))


def _cut(box: Box, row: Sequence[float]) -> tuple[list[Box], Box]:
    """The row's parts along the shorter side, and what is left."""
    total = sum(row)
    if box.width >= box.height:
        width = total / box.height if box.height else 0
        parts, y = [], box.y
        for area in row:
            height = area / width if width else 0
            parts.append(Box(box.x, y, width, height))
            y += height
        return parts, Box(box.x + width, box.y, max(0, box.width - width), box.height)
    height = total / box.width if box.width else 0
    parts, x = [], box.x
    for area in row:
        width = area / height if height else 0
        parts.append(Box(x, box.y, width, height))
        x += width
    return parts, Box(box.x, box.y + height, box.width, max(0, box.height - height))
