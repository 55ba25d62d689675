"""A configuration file as sections and values: what is wrong is collected, with the key it is about."""

from __future__ import annotations

import difflib
import errno
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from regwrap.core.errors import UsageError
from regwrap.core.fields import a_text, of_kind, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

MAX_CONFIG_BYTES: Final = 1024 * 1024
_MAX_SECONDS: Final = 7 * 24 * 3600

T = TypeVar("T")
D = TypeVar("D")


def read_file(path: Path) -> dict[object, object]:
    from regwrap.lists.yaml_read import parse_value  # most runs have no configuration

    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{path}: larger than {MAX_CONFIG_BYTES // 1024} KiB; is this the configuration?")
    try:
        document = parse_value(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start + 1})") from error
    if document is not None and not isinstance(document, dict):
        raise UsageError(f"{path}: expected a mapping (key: value), got {shown(document)}")
    return document or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A mapping of the file, in which `where` leads to its keys. What is wrong goes to the shared `problems`."""

    where: str
    base: Path
    home: Path
    values: dict[object, object]
    problems: list[str]

    def expect_keys(self, known: Collection[str]) -> None:
        where = self.where if self.where.endswith(" ") else f"{self.where[:-1]}: "
        unknown = [shown(key) for key in self.values if key not in known]
        self.problems.extend(f"{where}unknown key {key}; {advice(key.strip(chr(34)), known)}" for key in unknown)

    def section(self, key: str) -> Section:
        return replace(self, where=f"{self.where}{key}.", values=self.get(key, a_mapping, {}))

    def get(self, key: str, parse: Callable[[object], T], default: D) -> T | D:
        # A key without a value counts as not there: that remains when its children are commented out.
        return collected(self.problems, f"{self.where}{key}", self.values.get(key), parse, default)

    def path(self, key: str, is_valid: Callable[[Path], bool] | None = None, kind: str = "") -> Path | None:
        path = self.get(key, lambda value: parsed_path(a_text(value), self.base, self.home), None)
        try:
            if path is not None and is_valid and not is_valid(path):
                self.problems.append(f"{self.where}{key}: the {kind} {path} does not exist")
        except OSError as error:
            self.problems.append(f"{self.where}{key}: the {kind} {path} cannot be checked: {error.strerror}")
        return path


def collected(problems: list[str], origin: str, value: object, parse: Callable[[object], T], default: D) -> T | D:
    if value is None:
        return default
    try:
        return parse(value)
    except (UsageError, ValueError) as error:
        problems.append(f"{origin}: {error}")
        return default


a_mapping: Final = of_kind("a mapping (key: value)", dict)


def seconds_from(low: int) -> Callable[[object], float]:
    expected = f"a number of seconds from {low} to {_MAX_SECONDS}"
    return of_kind(expected, int, float, fits=lambda number: low <= number <= _MAX_SECONDS)


def parsed_path(text: str, base: Path, home: Path) -> Path:
    if re.match(r"~[^/]", text):
        raise UsageError(f"expected ~ or ~/ for a home directory, got {shown(text)}")
    if not text or "\0" in text or re.search(r"[\ud800-\udc7f\udd00-\udfff]", text):  # what os.fsencode refuses
        raise UsageError(f"expected a path, got {shown(text)}")
    return home / text[1:].lstrip("/") if text.startswith("~") else base / text


def is_there(path: Path, is_valid: Callable[[Path], bool]) -> bool:
    try:
        return is_valid(path)
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}:  # no permission to look, or no path at all
            return False
        raise


def advice(word: str, known: Collection[str]) -> str:
    """`did you mean "x"?`, or all that there is. Of the close ones that with the same beginning: typos come later."""
    close = difflib.get_close_matches(word[:60], known, n=3)
    if not close:
        return f"known: {', '.join(known)}"
    same = {name: next((n for n, (a, b) in enumerate(zip(word, name, strict=False)) if a != b), 99) for name in close}
    return f'did you mean "{max(close, key=same.__getitem__)}"?'
