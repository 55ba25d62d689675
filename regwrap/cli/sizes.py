"""The size of a bundle before it is written: shown, added to a CI job's summary, compared with a limit."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.cli.output import show

if TYPE_CHECKING:
    from regwrap.commands.package import PackageOptions
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job


def planned(
    job: Job, images: ImageList, options: PackageOptions, *, since: str | None, limit: int | None, json: bool | None
) -> None:
    """Show the sizes, unless `json` is None, and add them to the summary of a CI job. Raises ImagesFailedError where
    the limit is passed."""
    from regwrap.bundle.as_list import opened_listing  # none of this is needed to write a bundle
    from regwrap.commands.size import plan_bundle, refuse_larger
    from regwrap.report.size_text import size_summary, size_text

    with nullcontext(None) if since is None else opened_listing(since, sys.stdin.buffer) as older:
        plan = plan_bundle(job, images, options, older)
    if json is not None:
        show(plan, size_text(plan), json=json)
    if path := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(size_summary(plan))
    if limit is not None:
        refuse_larger(plan, limit)
