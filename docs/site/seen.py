"""The tables of the page for the night: what one sees, and what to do. They stand in the page, so that it can be read
without the site; `make fmt` writes them.

A table stands below a comment `<!-- seen:` with a line for each row: a part of a message, whose hint is taken, or
`PART => WHAT TO DO` where the hint is made while running or is too general.
"""

import re
from pathlib import Path
from typing import Final

import messages
from tables import code, table

from regwrap.core.answers import CAUSES

PAGE: Final = Path(__file__).parents[1] / "days/at-3-am.md"
_PLACE: Final = re.compile(r"(^<!-- seen:\n(.*?)\n-->\n)(?:\n\|.*?\n(?=\n|\Z))?", re.MULTILINE | re.DOTALL)


def with_tables(markdown: str) -> str:
    return _PLACE.sub(lambda found: f"{found[1]}\n{_rows(found[2].splitlines())}\n", markdown)


def _rows(lines: list[str]) -> str:
    everything = [*((message.text, message.todo) for message in messages.all_messages()), *CAUSES.values()]
    rows = []
    for line in lines:
        part, _, own = line.partition(" => ")
        said = [(text, todo) for text, todo in everything if part in text]
        if not said:
            raise ValueError(f"no message has {part!r}")
        text = next(one for one in said[0][0].split(" / ") if part in one)  # of its alternatives
        rows.append((code(text), own or code(said[0][1])))
    return table(("it says", "what to do"), rows)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
