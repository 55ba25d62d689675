"""The command line as a typer app. A command's module is imported when its name is among the words that were typed.

So `--version`, `--help` and the completion of names cost a start of Python and of typer, and no more.
"""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import groupby
from typing import Annotated, Final, Protocol

import typer
from typer.core import TyperGroup

from regwrap import __version__
from regwrap.cli.catalog import ABOUT, COMMANDS, EPILOG, FAMILIES, GROUPS
from regwrap.cli.entry import Entry

# Where typer's scripts for the shells put the line that is to be completed.
_COMPLETED: Final = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
_EARLY: Final = {"-q", "--quiet", "-v", "--verbose"}
_EARLY_WITH_VALUE: Final = {"--config"}


def typed_words(arguments: Sequence[str], environ: Mapping[str, str]) -> frozenset[str]:
    """What was typed: the arguments, or the words of the line that a shell wants to have completed."""
    return frozenset([*arguments, *(word for name in _COMPLETED for word in _split(environ.get(name, "")))])


def in_order(arguments: Sequence[str]) -> list[str]:
    """The arguments with what stands in front of the command behind it: people type --config, -q, -v on both sides."""
    rest, early = list(arguments), list[str]()
    while rest and (rest[0] in _EARLY or rest[0] in _EARLY_WITH_VALUE or rest[0].startswith("--config=")):
        count = 2 if rest[0] in _EARLY_WITH_VALUE else 1
        early, rest = [*early, *rest[:count]], rest[count:]
    count = 2 if rest and rest[0] in FAMILIES else 1
    command = rest[:count]
    if len(command) < count or any(word.startswith("-") for word in command):
        return rest  # the help or the version, for which they say nothing
    return [*command, *early, *rest[count:]]


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is still open
        return line.split()


def every_word() -> frozenset[str]:
    return frozenset(word for entry in COMMANDS for word in entry.words)


def make_app(words: Collection[str]) -> typer.Typer:
    """All commands; those that `words` name can be run and know their options."""
    app = typer.Typer(
        name="regwrap",
        cls=_Pipeline,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=ABOUT, epilog=EPILOG)(_common)
    families = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in FAMILIES.items()}
    for entry in COMMANDS:
        first, *rest = entry.words
        parent = families[first] if rest else app
        run = _function(entry) if first in words else _not_called
        parent.command(entry.words[-1], help=entry.help, short_help=entry.summary, epilog=EPILOG)(run)
    for name, family in families.items():
        app.add_typer(family, name=name)
    return app


def _function(entry: Entry) -> Callable[..., None]:
    module, _, name = entry.function.partition(".")
    found: Callable[..., None] = getattr(import_module(f"regwrap.cli.{module}"), name)
    return found


def _not_called() -> None:
    """Stands for a command that no word names: only its name and summary are asked for."""


class _Formatter(Protocol):
    """What is needed of the formatter of help texts."""

    def section(self, name: str, /) -> AbstractContextManager[None]: ...

    def write_dl(self, rows: Sequence[tuple[str, str]], /) -> None: ...


class _Pipeline(TyperGroup):
    """Shows the commands along the pipeline."""

    def format_commands(self, ctx: object, formatter: _Formatter) -> None:
        for group in GROUPS:
            entries = (entry for entry in COMMANDS if entry.group == group)
            with formatter.section(group):
                formatter.write_dl([_row(name, list(found)) for name, found in groupby(entries, lambda e: e.words[0])])


def _row(name: str, entries: list[Entry]) -> tuple[str, str]:
    return name, FAMILIES.get(name, entries[0].summary)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"regwrap {__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version (regwrap doctor lists tool versions).",
        ),
    ] = False,
) -> None:
    pass
