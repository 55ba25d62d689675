"""How many files may be open: what a run of many images needs, and what the system gives (getrlimit(2))."""

from __future__ import annotations

import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted

if TYPE_CHECKING:
    from collections.abc import Callable

_OWN: Final = 192  # of the run itself: storages, locks, scratch files, connections that are kept at both ends
_EACH: Final = 24  # of an image under way: connections, curl's pipes and the files that they are written to


def affordable_jobs(jobs: int, log: Callable[[str], None]) -> int:
    """How many images at a time, at most `jobs`. Raises the soft limit as far as needed, and says where it can't."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OWN + _EACH * jobs
    limit = needed
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, limit), hard))
    possible = max(1, (limit - _OWN) // _EACH)
    if possible < jobs:
        log(
            f"note: only {limit} files may be open (ulimit -n): {counted(possible, 'image')} at a time"
            f" instead of {jobs}"
        )
    return min(jobs, possible)
