"""What a command that starts programs has at hand: its list, the programs, a private directory, the story on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from regwrap.bundle.as_list import read_listing
from regwrap.bundle.contents import parse_name
from regwrap.cli.output import told
from regwrap.config.load import Config, Flags, load_config
from regwrap.config.locations import configured_place, registry_for
from regwrap.core.counts import counted
from regwrap.core.errors import UsageError
from regwrap.core.location import Location
from regwrap.core.model import ParseError
from regwrap.core.text import printable
from regwrap.lists.lock import lock_path
from regwrap.lists.wanted import Wanted
from regwrap.tools.descriptors import affordable_jobs
from regwrap.tools.executor import ShExecutor
from regwrap.tools.outage import Outages
from regwrap.tools.retry import Retry
from regwrap.tools.runner import Runner
from regwrap.tools.scratch import scratch_directory
from regwrap.transfer.job import Job

if TYPE_CHECKING:
    from regwrap.lists.imagelist import ImageList
    from regwrap.report.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What a command has at hand: the story, the programs, a private directory."""

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
            place_of=lambda host: _place_of(config, host),
            jobs=affordable_jobs(config.jobs, self.progress.say),
            retry=Retry(config.retry, stopping, Outages(config.retry.outage, stopping, self.progress.say)),
            timeouts=config.timeouts,
            environment=config.environment,
            helper_environment=config.helper_environment,
            listener=self.progress,
            engine=config.engine,
            signed=config.signed,
        )


def _place_of(config: Config, host: str) -> Location:
    return configured_place(config, host) or Location(name=host, registry=registry_for(config, host))


@contextmanager
def opened_session(*, quiet: bool, verbose: bool = False) -> Iterator[Session]:
    """Programs, waits and retries of a session end with it, and at once."""
    with scratch_directory() as scratch, told(quiet=quiet) as progress:
        runner = Runner(
            executor=ShExecutor(),
            scratch=scratch,
            search_path=os.environ.get("PATH", os.defpath),
            log=(lambda line: progress.line(printable(f"+ {line}"))) if verbose else lambda _line: None,
        )
        try:
            yield Session(progress, runner, scratch)
        finally:
            runner.stopping.set()


def wanted_of(images_list: str, settings: Config, progress: Progress) -> Wanted:
    """The list, or the release that stands for one, and the rules; what is to be said of the list is told."""
    images = read_listing(images_list, sys.stdin.buffer, settings.rewrite)
    wanted = Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite)
    for note in wanted.images.notes:
        progress.say(f"note: {note}")
    if not wanted.images.entries:
        progress.say(f"note: {wanted.images.name} lists no images")
    return wanted


def images_of(wanted: Wanted, progress: Progress, lock: Path | None = None) -> ImageList:
    """The images of the run: the list, or what its lock says of it."""
    images = wanted.under(lock)
    if lock is not None:
        progress.say(f"{lock}: {counted(len(images.entries), 'image')}, by digest")
    return images


def listed(images_list: str, settings: Config, progress: Progress, lock: Path | None = None) -> ImageList:
    """The images of a list by its path, or what its lock says of it."""
    return images_of(wanted_of(images_list, settings, progress), progress, lock)


def lock_of(images_list: str, file: Path | None, *, locked: bool) -> Path | None:
    return lock_path(images_list, file) if locked or file else None


def load(
    config: Path | None,
    source: str | None = None,
    archive: str | None = None,
    jobs: int | None = None,
    upper: Path | None = None,
    engine: str | None = None,
) -> Config:
    where = None if upper is None else f"{upper}"
    flags = Flags(config=config, source=source, archive=archive, jobs=jobs, upper=where, engine=engine)
    return load_config(flags, environ=os.environ, cwd=Path.cwd())


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise UsageError(f"{option}: {error}") from error


def release_name(text: str | None, option: str = "--name") -> str:
    """What the option says; empty where it was not given."""
    return "" if text is None else parsed(option, parse_name, text)
