"""The size of a bundle before it is written: shown, added to a CI job's summary, compared with a limit."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.cli.output import add_to_summary, has_summary, show
from regwrap.cli.settings import parsed
from regwrap.core.errors import UsageError
from regwrap.core.text import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from regwrap.bundle.delta import Older
    from regwrap.bundle.stream import Target
    from regwrap.commands.package import PackageOptions
    from regwrap.commands.size import BundlePlan
    from regwrap.core.listener import Listener
    from regwrap.lists.imagelist import ImageList
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True)
class SizeOptions:
    """`since` are the files that say what a site has; `limit` in bytes, None without one."""

    since: tuple[str, ...]
    limit: int | None

    @classmethod
    def parse(cls, since: Sequence[str] | None, max_size: str | None) -> SizeOptions:
        return cls(tuple(since or ()), None if max_size is None else parsed("--max-size", parse_bytes, max_size))


def planned(
    job: Job, images: ImageList, options: PackageOptions, sizes: SizeOptions, log: Callable[[BundlePlan], None]
) -> None:
    """Tell the sizes, and add them to the summary of a CI job. Raises ImagesFailedError where the limit is passed."""
    from regwrap.bundle.as_list import opened_listing  # none of this is needed to write a bundle
    from regwrap.commands.size import plan_bundle, refuse_larger
    from regwrap.report.size_text import size_summary

    with ExitStack() as stack:
        older = tuple(stack.enter_context(opened_listing(path, sys.stdin.buffer)) for path in sizes.since)
        plan = plan_bundle(job, images, options, older)
    log(plan)
    if has_summary():
        add_to_summary(size_summary(plan))
    if sizes.limit is not None:
        refuse_larger(plan, sizes.limit)


def older_of(since: Sequence[str] | None) -> tuple[Older, ...]:
    """What the site has, by --since."""
    if not since:
        return ()
    from regwrap.bundle.delta import read_older  # deltas are asked for now and then

    return read_older(since)


def log_total(plan: BundlePlan, *, progress: Listener) -> None:
    """In a line of the log."""
    from regwrap.report.size_text import size_total

    progress.log(size_total(plan))


def shown_sizes(plan: BundlePlan, *, json: bool) -> None:
    """All of it, on stdout."""
    from regwrap.report.size_text import size_text

    show(plan, size_text(plan), json=json)


def target_of(output: Path, volume_size: str | None, volume: int | None) -> Target | None:
    """Where a bundle goes that is no file: a pipe, or volumes. Raises UsageError."""
    if volume is not None and volume_size is None:
        raise UsageError("--volume needs --volume-size", hint="give --volume-size, as it was")
    if output == Path("-"):
        from regwrap.bundle.pipe import PipeTarget  # most bundles are files

        if volume_size is not None:
            raise UsageError("volumes are files: they do not go into a pipe", hint="give a file with -o")
        sys.stdout.flush()
        return PipeTarget(os.fdopen(1, "wb", buffering=0, closefd=False))
    if volume_size is None:
        return None
    from regwrap.bundle.volume_target import VolumeTarget

    size = parsed("--volume-size", parse_bytes, volume_size)
    if size < 1:
        raise UsageError("--volume-size: at least 1 byte")
    return VolumeTarget(output=output, size=size, only=volume or 0)
