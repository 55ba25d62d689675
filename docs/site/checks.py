"""What a page says of the program has to be so: its commands, their options, exit codes, and the messages it quotes."""

import re
import signal
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Final

import commands
import messages
from typer.core import TyperGroup

from regwrap.core.errors import ExitCode

# Pages on what once was, or on other programs and the code.
_OTHERS: Final = re.compile(r"(CHANGELOG|benchmarks)\.md|(decisions|changes)/")
# Options of other programs that pages name alone.
_FOREIGN: Final = frozenset(
    {
        "--add-images",
        "--all-platforms",
        "--cap-add",
        "--delete-untagged",
        "--merge",
        "--on-existing-tag",
        "--preserve-digests",
        "--reloader",
        "--scoped",
    }
)
_BLOCK: Final = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
_SPAN: Final = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# At the beginning of a line, in a pipe, behind another command, on another machine, in the container image.
_TYPED: Final = re.compile(r"(?:^ *(?:\$ )?|[|&;] *|ssh \S+ |regwrap:\S+ +)regwrap +([^\n#&|;<>)]*)", re.MULTILINE)
_EXIT_CODE: Final = re.compile(r"(?:exit\s+codes?|ends?\s+with)\s+(\d+)")
# Tables whose first column has words of regwrap.
_QUOTED: Final = re.compile(r"^\| (?:message|it says|regwrap says) \|.*\n\|[-| ]+\n((?:\|.*\n?)+)", re.MULTILINE)
_SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
_ALWAYS: Final = frozenset({"--version", "--install-completion", "--show-completion", "--help", "-h"})
# So much of a quotation has to be in the message itself, and not in what is filled in.
_ENOUGH: Final = 1 / 3


def unknown(name: str, markdown: str) -> list[str]:
    """What the page `name` says and the program does not know."""
    if _OTHERS.match(name):
        return []
    return [*_commands(markdown), *_options(markdown), *_exit_codes(markdown), *_quotations(markdown)]


def _commands(markdown: str) -> Iterator[str]:
    """Each command line, in blocks and between backquotes, with options that this command has."""
    blocks = "\n".join(_COMMENT.sub("", found[0].replace("\\\n", " ")) for found in _BLOCK.finditer(markdown))
    spans = "\n".join(" ".join(found[2].split()) for found in _SPAN.finditer(_BLOCK.sub("", markdown)))
    for typed in _TYPED.findall(f"{blocks}\n{spans}"):
        yield from _command(typed)


def _command(typed: str) -> Iterator[str]:
    words = typed.partition(" -- ")[0].split()
    command: object = commands.whole_app()
    known = set(_ALWAYS)
    path: list[str] = []
    while words and isinstance(command, TyperGroup):
        while words and words[0] in {"--config", "-q", "-v", *_ALWAYS}:  # they may stand in front
            words = words[2 if words[0] == "--config" else 1 :]
        if not words or words[0].isupper() or words[0] in {"…", "..."}:  # COMMAND
            break
        path.append(words.pop(0))
        if path[-1] not in command.commands:
            yield f"there is no command regwrap {' '.join(path)}"
            return
        command = command.commands[path[-1]]
        known |= _own(command)
    for option in (word.partition("=")[0] for word in words if _OPTION.match(word)):
        if option not in known:
            yield f"regwrap {' '.join(path)} has no option {option}"


def _own(command: object) -> set[str]:
    parameters = getattr(command, "params", ())
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


def _options(markdown: str) -> Iterator[str]:
    """Options between backquotes: of any command, if no other program stands in front of them."""
    for found in _SPAN.finditer(_BLOCK.sub("", markdown)):
        first = found[2].split()[0] if found[2].split() else ""
        if first.startswith("--") or first in commands.whole_app().commands:
            for option in _OPTION.findall(found[2]):
                if option not in _all_options() | _FOREIGN:
                    yield f"no command has the option {option}"


@cache
def _all_options() -> frozenset[str]:
    found, waiting = set(_ALWAYS), [*commands.whole_app().commands.values()]
    while waiting:
        command = waiting.pop()
        found |= _own(command)
        if isinstance(command, TyperGroup):
            waiting += command.commands.values()
    return frozenset(found)


def _exit_codes(markdown: str) -> Iterator[str]:
    known = {int(code) for code in ExitCode} | {128 + number for number in _SIGNALS}
    yield from (f"there is no exit code {code}" for code in _EXIT_CODE.findall(markdown) if int(code) not in known)


def _quotations(markdown: str) -> Iterator[str]:
    for table in _QUOTED.findall(markdown):
        for row in table.splitlines():
            for found in _SPAN.finditer(row.split(" | ")[0]):
                quoted = found[2].strip()
                if not any(_is_in(quoted, text) for text in messages.all_texts() if _may_be_in(quoted, text)):
                    yield f"regwrap does not say: {quoted}"


def _may_be_in(quoted: str, text: str) -> bool:
    """A quick look: two words that follow each other are in it."""
    words = quoted.split()
    return any(" ".join(pair) in text for pair in pairwise(words)) or words[0] in text.split()


def _is_in(quoted: str, text: str) -> bool:
    """Whether a message may say this. What stands in braces may be anything, and so may an ellipsis be."""
    parts = re.split(r"{[^}]*}", re.sub(r"  +", " ", text))
    # how much of the quotation is in the message's own words, by where one is in the message after what was read
    states = {(part, place): 0 for part, words in enumerate(parts) for place in range(len(words) + 1)}
    for character in quoted:
        after: dict[tuple[int, int], int] = {}
        for (part, place), own in states.items():
            for state, more in _steps(parts, part, place, character):
                after[state] = max(after.get(state, 0), own + more)
        states = after
    return max(states.values(), default=0) >= _ENOUGH * len(quoted)


def _steps(parts: list[str], part: int, place: int, character: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Where a character leads: on in the words, or on in what is filled in behind them."""
    if place < len(parts[part]):
        if parts[part][place] == character:
            yield (part, place + 1), 1
        elif character == "…":
            yield from (((part, later), 0) for later in range(place, len(parts[part]) + 1))
    elif part + 1 < len(parts):
        yield (part, place), 0
        if parts[part + 1][:1] == character:
            yield (part + 1, 1), 1
