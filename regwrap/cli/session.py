"""What a command that starts programs has at hand: its list, the programs, a private directory, the story on stderr."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from regwrap.cli.output import told
from regwrap.config.load import Config, Flags, load_config, registry_for
from regwrap.core.errors import UsageError
from regwrap.core.model import ParseError
from regwrap.core.place import Place
from regwrap.lists.imagelist import ImageList, Rewrite, read_images
from regwrap.lists.lock import lock_path
from regwrap.lists.wanted import Wanted, read_locked, refuse_rules
from regwrap.tools.runner import Runner, ShExecutor
from regwrap.tools.scratch import scratch_directory
from regwrap.transfer.job import Job, Listener

if TYPE_CHECKING:
    from regwrap.report.progress import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """What a command has at hand: the story, the programs, a private directory."""

    progress: Progress
    runner: Runner
    scratch: Path

    def job(self, config: Config) -> Job:
        return Job(
            runner=self.runner,
            scratch=self.scratch,
            source=config.source,
            archive=config.archive,
            place_of=lambda host: _place_of(config, host),
            jobs=config.jobs,
            retry=config.retry,
            timeouts=config.timeouts,
            environment=config.environment,
            listener=self.listener(),
            engine=config.engine,
        )

    def listener(self) -> Listener:
        progress = self.progress
        return Listener(
            say=progress.say,
            events=progress,
            expect=progress.expect,
            on_bytes=progress.on_bytes,
            watch=progress.watch,
        )


def _place_of(config: Config, host: str) -> Place:
    configured = (place for place in config.registries if place.registry and place.registry.host == host)
    return next(configured, None) or Place(name=host, registry=registry_for(config, host))


@contextmanager
def opened_session(*, quiet: bool, verbose: bool = False, stopping: threading.Event | None = None) -> Iterator[Session]:
    stopping = stopping or threading.Event()
    with scratch_directory() as scratch, told(quiet=quiet) as progress:
        runner = Runner(
            executor=ShExecutor(),
            scratch=scratch,
            search_path=os.environ.get("PATH", os.defpath),
            stopping=stopping,
            log=(lambda line: progress.line(f"+ {line}")) if verbose else lambda _line: None,
        )
        try:
            yield Session(progress, runner, scratch)
        finally:
            stopping.set()


def read_list(path: str, progress: Progress, rewrite: Rewrite) -> ImageList:
    images = read_images(path, sys.stdin.buffer, rewrite)
    for note in images.notes:
        progress.say(f"note: {note}")
    if not images.entries:
        progress.say(f"note: {images.name} lists no images")
    return images


def wanted_of(images_list: str, settings: Config, session: Session) -> Wanted:
    images = read_list(images_list, session.progress, settings.rewrite)
    return Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite)


def unlocked_list(path: str, settings: Config, progress: Progress) -> ImageList:
    """A list for what knows no lock but the lock itself."""
    images = read_list(path, progress, settings.rewrite)
    refuse_rules(Wanted(images=images, rules=settings.rules, rewrite=settings.rewrite))
    return images


def chosen(session: Session, settings: Config, wanted: Wanted, lock: Path | None) -> ImageList:
    """The list, or what its lock says of it."""
    if lock is None:
        refuse_rules(wanted)
        return wanted.images
    images = read_locked(wanted, lock)
    session.progress.say(f"{lock}: {len(images.entries)} images, by digest")
    return images


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
    flags = Flags(config=config, source=source, archive=archive, jobs=jobs, upper=upper, engine=engine)
    return load_config(flags, environ=os.environ, cwd=Path.cwd())


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ParseError as error:
        raise UsageError(f"{option}: {error}") from error
