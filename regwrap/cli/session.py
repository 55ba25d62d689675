"""What a command that starts programs has at hand: the programs, a private directory, the log on stderr."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.cli.output import shown_progress
from regwrap.config.locations import configured_location, registry_for
from regwrap.core.location import Location
from regwrap.core.text import printable
from regwrap.tools.descriptors import affordable_jobs
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.outage import Outages
from regwrap.tools.retry import Retry
from regwrap.tools.runner import Runner
from regwrap.tools.scratch import scratch_directory
from regwrap.transfer.job import Job

if TYPE_CHECKING:
    from regwrap.config.load import Config
    from regwrap.report.progress import Progress


@dataclass(frozen=True, slots=True)
class Session:
    """What a command has at hand: the log, the programs, a private directory."""

    progress: Progress
    runner: Runner
    scratch: Path

    def job(self, config: Config) -> Job:
        stopping = self.runner.stopping
        return Job(
            runner=self.runner,
            scratch=self.scratch,
            source=config.source,
            archive=config.archive,
            location_of=lambda host: _location_of(config, host),
            jobs=affordable_jobs(config.jobs, self.progress.log),
            retry=Retry(config.retry, stopping, Outages(config.retry.outage, stopping, self.progress.log)),
            timeouts=config.timeouts,
            environment=config.environment,
            helper_environment=config.helper_environment,
            listener=self.progress,
            engine=config.engine,
            signed=config.signed,
        )


def _location_of(config: Config, host: str) -> Location:
    return configured_location(config, host) or Location(name=host, registry=registry_for(config, host))


@contextmanager
def opened_session(*, quiet: bool, verbose: bool = False) -> Iterator[Session]:
    """Programs, waits and retries of a session end with it, and at once."""
    with scratch_directory() as scratch, shown_progress(quiet=quiet) as progress:
        runner = Runner(
            launcher=ShLauncher(),
            scratch=scratch,
            search_path=os.environ.get("PATH", os.defpath),
            log=(lambda line: progress.line(printable(f"+ {line}"))) if verbose else lambda _line: None,
        )
        try:
            yield Session(progress, runner, scratch)
        finally:
            runner.stopping.set()
