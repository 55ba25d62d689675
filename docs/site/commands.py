"""A page for each command, made of the texts of its help."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tables import code, table
from typer.core import TyperGroup
from typer.main import get_group

from regwrap.cli.app import every_word, make_app
from regwrap.cli.catalog import COMMANDS
from regwrap.cli.entry import Entry
from regwrap.cli.manpage import usage_and_options

_OVERVIEW: Final = Path(__file__).parents[1] / "commands.md"


@cache
def whole_app() -> TyperGroup:
    """The command line with the options of all commands."""
    return get_group(make_app(every_word()))


def pages() -> dict[str, str]:
    """By its path below docs/ each page, in the order of the help."""
    return {path_of(entry): "\n".join(_page(entry)) for entry in COMMANDS}


def path_of(entry: Entry) -> str:
    return f"commands/{entry.name.replace(' ', '-')}.md"


def _page(entry: Entry) -> Iterator[str]:
    usage, options = usage_and_options(whole_app(), entry)
    yield f"# {entry.name}\n\n{entry.summary} {entry.more}\n\n```\n{usage}\n```\n"
    yield table(("", "what it does"), [(code(name), text) for name, text in options])
    yield "\n## Examples\n\n```"
    yield from (f"# {what}\n{typed}" for what, typed in entry.examples)
    yield "```\n"
    if title := _section(entry):
        anchor = re.sub(r"[^\w -]", "", title).lower().replace(" ", "-")
        yield f"More about it: [{title}](../commands.md#{anchor})."


def _section(entry: Entry) -> str:
    """The part of the overview that is about the command."""
    titles = re.findall(r"^## (.+)$", _OVERVIEW.read_text(encoding="utf-8"), re.MULTILINE)
    return next((title for title in titles if entry.name in title.split(", ")), "")
