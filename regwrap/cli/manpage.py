"""The manual page regwrap(1), from the same texts as the help: `python -m regwrap.cli.manpage` writes it to stdout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Final

import typer
from typer.core import TyperGroup
from typer.main import get_group

from regwrap import __version__
from regwrap.cli.app import every_word, make_app
from regwrap.cli.catalog import ABOUT, COMMANDS, EPILOG, GROUPS

if TYPE_CHECKING:
    from regwrap.cli.entry import Entry

_ESCAPES: Final = str.maketrans(
    {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha", '"': r"\(dq"}
)
_FILES: Final = (
    ("./regwrap.yaml, ~/.config/regwrap/config.yaml", "The configuration, unless --config or $REGWRAP_CONFIG names"
     " another. regwrap init writes one with comments."),
    ("images.list", "The images of a release, one a line: [HOST/]NAME[:TAG][@DIGEST] [=> NAME[:TAG]] [platform=...]."),
    ("~/.local/share/regwrap/archive", "The embedded archive, unless another one is configured."),
)  # fmt: skip
_VARIABLES: Final = (
    ("REGWRAP_CONFIG, REGWRAP_SOURCE, REGWRAP_ARCHIVE, REGWRAP_SCRATCH, REGWRAP_JOBS", "Override the"
     " configuration; options override them."),
    ("TMPDIR", "Directory for temporary files that have no better place."),
)  # fmt: skip


def manual_page(date: str) -> str:
    """The page in the language of man(7); without a date where that is empty."""
    app = get_group(make_app(every_word()))
    lines = [
        f'.TH REGWRAP 1 "{date}" "regwrap {__version__}" "User Commands"',
        ".SH NAME",
        f"regwrap {_text('-')} {_text(_small(ABOUT).removesuffix('.'))}",
        ".SH SYNOPSIS",
        ".B regwrap",
        _text("COMMAND [OPTIONS] [ARGUMENTS]"),
        ".SH DESCRIPTION",
        _text(ABOUT),
        *(line for group in GROUPS for line in _group(app, group)),
        *_definitions("FILES", _FILES),
        *_definitions("ENVIRONMENT", _VARIABLES),
        ".SH EXIT STATUS",
        _paragraph(EPILOG.removeprefix("Exit codes: ")),
        ".SH SEE ALSO",
        ".BR skopeo (1),\n.BR umoci (1),\n.BR tar (1)",
    ]
    return "\n".join(lines) + "\n"


def _group(app: TyperGroup, group: str) -> Iterator[str]:
    yield f".SH {re.sub('^[0-9. ]+', '', group).upper()}"
    for entry in COMMANDS:
        if entry.group == group:
            yield from _command(app, entry)


def usage_and_options(app: TyperGroup, entry: Entry) -> tuple[str, list[tuple[str, str]]]:
    """What the help of a command says of them."""
    context = app.make_context("regwrap", [], resilient_parsing=True)
    command = app.commands[entry.words[0]]
    context = command.make_context(entry.words[0], [], parent=context, resilient_parsing=True)
    if isinstance(command, TyperGroup):
        command = command.commands[entry.words[1]]
        context = command.make_context(entry.words[1], [], parent=context, resilient_parsing=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage:").split())
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    return usage, [record for record in records if record]


def _command(app: TyperGroup, entry: Entry) -> Iterator[str]:
    usage, options = usage_and_options(app, entry)
    yield f".SS {_text(f'regwrap {entry.name}')}"
    yield _text(usage)
    for paragraph in f"{entry.summary} {entry.more}".strip().split("\n\n"):
        yield from (".PP", _paragraph(paragraph))
    for name, text in options:
        yield from _definition(name, text)
    yield from (".PP", "Examples:", ".PP", ".RS 4", ".nf")
    for what, typed in entry.examples:
        yield from (_text(f"# {what}"), _text(typed))
    yield from (".fi", ".RE")


def _definitions(title: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield f".SH {title}"
    for term, text in pairs:
        yield from _definition(term, text)


def _definition(term: str, text: str) -> tuple[str, ...]:
    return ".TP", f"\\fB{_text(term)}\\fR", _paragraph(text)


def _paragraph(text: str) -> str:
    return "\n".join(_text(line) for line in wrap(" ".join(text.split()), width=72, break_on_hyphens=False))


def _small(text: str) -> str:
    return f"{text[:1].lower()}{text[1:]}"


def _text(text: str) -> str:
    """Text that roff takes for nothing else, whatever it begins with."""
    escaped = text.translate(_ESCAPES)
    ascii_only = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in escaped)
    return f"\\&{ascii_only}" if ascii_only.startswith(".") else ascii_only


def main() -> None:
    """Dated by $SOURCE_DATE_EPOCH where that is set, so that the same source gives the same page."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch.isdecimal() else datetime.now(UTC)
    typer.echo(manual_page(f"{moment:%Y-%m-%d}"), nl=False)


if __name__ == "__main__":
    main()
