"""What came of a sync or a release: the files of its report, what is told of it, the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from regwrap.bundle.aside import write_atomically
from regwrap.cli.output import add_to_summary, echo, has_summary, refuse_overwriting
from regwrap.core.errors import ExitCode
from regwrap.core.text import printable
from regwrap.core.writing import check_directory, write_file
from regwrap.lists.imagelist import failed_list
from regwrap.report import text as report
from regwrap.report.github import summary, workflow_commands
from regwrap.report.record import RunFacts, RunRecord, merge, record_of, to_text
from regwrap.report.terminal import reader_of, red

if TYPE_CHECKING:
    from regwrap.config.load import Config
    from regwrap.lists.shards import Shard
    from regwrap.transfer.run import SyncReport

_HEAD_BYTES: Final = 8192


@dataclass(frozen=True, slots=True)
class RecordFiles:
    """Where the record of a run goes, and what it says of the run."""

    command: str
    shard: Shard | None
    started: str
    report: Path | None
    junit: Path | None

    @classmethod
    def now(
        cls, command: str, images: str, shard: Shard | None, report_file: Path | None, junit: Path | None
    ) -> RecordFiles:
        """`images` is the file that says which: a list, or a bundle. Raises UsageError for what cannot be written."""
        for path in (report_file, junit):
            if path:
                check_directory(path)
                refuse_overwriting(path, [Path(images)])
        return cls(command, shard, datetime.now(UTC).isoformat(timespec="seconds"), report_file, junit)

    def write(self, results: Sequence[SyncReport], name: str, source: str | None, sha256: str = "") -> RunRecord:
        """`name` says what was read, `source` where images without a registry come from; `sha256` is of the bundle."""
        facts = RunFacts(
            command=self.command,
            list=name,
            shard=f"{self.shard}" if self.shard else None,
            source=source,
            started=self.started,
        )
        record = replace(merge([record_of(result, facts) for result in results]), sha256=sha256)
        write_record(record, self.report, self.junit)
        return record


def source_of(settings: Config) -> str | None:
    """The host, or the name of a storage, that lines without a registry come from."""
    source = settings.source
    return None if source is None else source.registry.host if source.registry else source.name


def write_record(record: RunRecord, file: Path | None, junit: Path | None) -> None:
    """Into files, and to GitHub where that is what runs us."""
    if file:
        write_atomically(file, to_text(record))
    if junit:
        from regwrap.report.junit import to_junit  # imports a library for XML

        write_atomically(junit, to_junit(record))
    if os.environ.get("GITHUB_ACTIONS") == "true" and (commands := workflow_commands(record)):
        echo(commands, err=True)
    if has_summary():
        add_to_summary(summary(record))


def log_tag_moves(result: SyncReport, *, quiet: bool) -> None:
    """Tags that are another image now, which quiet does not hide, and those that have drifted."""
    if result.replaced:
        typer.echo(report.replaced_text(result.replaced), err=True)
    if result.moved and not quiet:
        echo(report.drift_text(result.moved), err=True)


def failed_file(given: Path | None, shard: Shard | None) -> Path:
    """Shards may share a directory."""
    return given or Path(f"failed-{shard.number}-of-{shard.count}.list" if shard else "failed.list")


def write_failed(result: SyncReport, file: Path, name: str) -> None:
    """The lines that failed of the list `name`; without any, what an earlier run of that list has left is removed."""
    if result.failed:
        lines = failed_list(item.entry for item in result.failed)
        write_file(file, f"{_failed_head(name)}\n{lines}")
        echo(f"the failed lines are in {file}; retry them with: regwrap sync {file}", err=True)
        return
    with suppress(OSError):
        with file.open("rb") as opened:
            is_ours = opened.readline(_HEAD_BYTES).rstrip(b"\n") == _failed_head(name).encode()
        if is_ours:
            file.unlink()


def _failed_head(name: str) -> str:
    """How the list of the lines begins that failed of another one."""
    return f"# failed of {printable(name)}"


def finish_sync(result: SyncReport, failed: Path, name: str, *, json: bool, quiet: bool) -> None:
    """`name` is the list."""
    if json:
        typer.echo(report.to_json(result))
    log_tag_moves(result, quiet=quiet)
    if result.failed:
        typer.echo(
            red(printable(report.failures_text(result), keep="\n\t"), reader_of(sys.stderr, os.environ)), err=True
        )
    write_failed(result, failed, name)
    if not json:
        echo(report.sync_text(result))
    if result.failed:
        raise typer.Exit(failures_code(result))


def failures_code(result: SyncReport) -> ExitCode:
    """Nothing is wrong with the images where the network was all that failed."""
    is_network = all(item.down for item in result.failed)
    return ExitCode.TOOL if is_network else ExitCode.IMAGES_FAILED
