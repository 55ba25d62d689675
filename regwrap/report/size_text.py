"""The sizes of a planned bundle: a table for a terminal, and one for the summary of a CI job. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes, table
from regwrap.report.markdown import table_lines

if TYPE_CHECKING:
    from regwrap.commands.size import BundlePlan, PlannedImage

_SHOWN: Final = 50


def size_text(plan: BundlePlan) -> str:
    """Every image, what adds most first; and the totals."""
    rows = table([_head(plan), *(_row(image) for image in plan.largest())])
    return "\n".join([*rows, size_total(plan), f"release {plan.release}"])


def size_summary(plan: BundlePlan) -> str:
    """The totals, and the images that add most."""
    rows = [_row(image) for image in plan.largest()]
    lines = [
        f"### The bundle: {size_total(plan)}",
        "",
        f"Release {plan.release}",
        *table_lines(_head(plan), rows, _SHOWN),
    ]
    return "\n".join(lines) + "\n"


def _head(plan: BundlePlan) -> tuple[str, ...]:
    return ("IMAGE", "SIZE", "ALONE") if plan.new_bytes is None else ("IMAGE", "SIZE", "ALONE", "NEW")


def _row(image: PlannedImage) -> tuple[str, ...]:
    new = () if image.new is None else (human_bytes(image.new),)
    return (image.image, human_bytes(image.size), human_bytes(image.alone), *new)


def size_total(plan: BundlePlan) -> str:
    """In a line."""
    new = "" if plan.new_bytes is None else f", {human_bytes(plan.new_bytes)} of it new since {plan.since}"
    fetched = f"; {human_bytes(plan.fetched_bytes)} not in the archive yet" if plan.fetched_bytes else ""
    return (
        f"{counted(len(plan.images), 'image')}, {counted(plan.blobs, 'blob')}, {human_bytes(plan.blob_bytes)}{new};"
        f" the bundle would have {human_bytes(plan.file_bytes)}{fetched}"
    )
