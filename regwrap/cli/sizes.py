"""The size of a bundle before it is written: shown, added to a CI job's summary, compared with a limit."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.cli.output import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regwrap.bundle.delta import Older
    from regwrap.commands.package import PackageOptions
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job


def planned(
    job: Job, images: ImageList, options: PackageOptions, *, since: Sequence[str], limit: int | None, json: bool | None
) -> None:
    """Show the sizes, unless `json` is None, and add them to the summary of a CI job. Raises ImagesFailedError where
    the limit is passed."""
    from regwrap.bundle.as_list import opened_listing  # none of this is needed to write a bundle
    from regwrap.commands.size import plan_bundle, refuse_larger
    from regwrap.report.size_text import size_summary, size_text

    with ExitStack() as stack:
        older = tuple(stack.enter_context(opened_listing(path, sys.stdin.buffer)) for path in since)
        plan = plan_bundle(job, images, options, older)
    if json is not None:
        show(plan, size_text(plan), json=json)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(size_summary(plan))
    if limit is not None:
        refuse_larger(plan, limit)


def older_of(since: Sequence[str] | None) -> tuple[Older, ...]:
    """What the site has, by --since."""
    if not since:
        return ()
    from regwrap.bundle.delta import read_older  # deltas are asked for now and then

    return read_older(since)
