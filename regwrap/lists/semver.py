"""Versions and ranges as in semver.org and npm, as far as tags of images need them. Pure.

A tag may begin with `v`, may leave out its last parts (v1.2 is 1.2.0) and may have zeros in front (24.04 is 24.4.0). A
prerelease (1.3.0-rc.1, and 16-alpine too) is in a range only where the range names one of the same three numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from regwrap.core.model import ParseError

_NUMBER: Final = r"([0-9]{1,9})"
_PARTS: Final = rf"{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER})?)?"
_VERSION: Final = re.compile(rf"v?{_PARTS}(?:-([0-9A-Za-z.-]+))?")
_COMPARATOR: Final = re.compile(rf"(>=|<=|>|<|=|\^|~)?(v?{_PARTS}(?:-[0-9A-Za-z.-]+)?|\*)")
_OPERATOR_BLANKS: Final = re.compile(r"(>=|<=|>|<|=|\^|~)\s+")
_HINT: Final = "a range looks like >=1.2 <2 or ^1.4 || ~2.0"

Numbers = tuple[int, int, int]
_Identifier = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Version:
    """`given` is how many of its numbers were written."""

    numbers: Numbers
    prerelease: str
    given: int

    @property
    def key(self) -> tuple[Numbers, int, tuple[_Identifier, ...]]:
        """What orders versions: a prerelease comes before its release."""
        return (self.numbers, 0 if self.prerelease else 1, _identifiers(self.prerelease))


def parse_version(text: str) -> Version | None:
    """The version that a tag is; None where it is none."""
    match = _VERSION.fullmatch(text)
    if match is None or not all((match[4] or "x").split(".")):
        return None
    parts = [part for part in match.groups()[:3] if part is not None]
    numbers = [int(part) for part in (*parts, "0", "0")]
    return Version((numbers[0], numbers[1], numbers[2]), match[4] or "", len(parts))


@dataclass(frozen=True, slots=True)
class _Bounds:
    """From `low` up to, and without, `high`; None is no bound. `named` is a prerelease's version that was written."""

    low: Version | None
    high: Version | None
    named: Numbers | None

    def holds(self, version: Version) -> bool:
        above = self.low is None or version.key >= self.low.key
        return above and (self.high is None or version.key < self.high.key)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """`text` as it was written; one of `alternatives` has to hold, with all its bounds."""

    text: str
    alternatives: tuple[tuple[_Bounds, ...], ...]

    def holds(self, version: Version) -> bool:
        return any(_holds(alternative, version) for alternative in self.alternatives)


def parse_range(text: str) -> VersionRange:
    """`>=`, `>`, `<`, `<=`, `=`, `^`, `~` before versions; a blank means and, `||` means or. Raises ParseError."""
    alternatives = [_OPERATOR_BLANKS.sub(r"\1", part).replace(",", " ").split() for part in text.split("||")]
    if not all(alternatives):
        raise ParseError(f"a version is missing in {text[:60]!r}; {_HINT}")
    return VersionRange(text, tuple(tuple(_bounds(word, text) for word in words) for words in alternatives))


def _holds(alternative: tuple[_Bounds, ...], version: Version) -> bool:
    named = not version.prerelease or any(bounds.named == version.numbers for bounds in alternative)
    return named and all(bounds.holds(version) for bounds in alternative)


def _bounds(word: str, text: str) -> _Bounds:
    match = _COMPARATOR.fullmatch(word)
    if match is None:
        raise ParseError(f"{word[:60]!r} is not a version, in the range {text[:60]!r}; {_HINT}")
    operator, version = match[1] or "=", parse_version(match[2])
    if version is None:
        return _Bounds(None, None, None)  # `*`
    low, high = _low_and_high(operator, version)
    return _Bounds(low, high, version.numbers if version.prerelease else None)


def _low_and_high(operator: str, version: Version) -> tuple[Version | None, Version | None]:
    if operator in {">", "<="}:
        after = _after(version)
        return (after, None) if operator == ">" else (None, after)
    if operator == "<":
        return None, version
    if operator == ">=":
        return version, None
    if operator == "^":
        return version, _next(version.numbers, min(_first_nonzero(version), version.given - 1))
    return version, _next(version.numbers, min(1, version.given - 1)) if operator == "~" else _after(version)


def _after(version: Version) -> Version:
    """The least version behind all that `version` stands for: 1.2 stands for every 1.2.x."""
    if version.prerelease:
        return Version(version.numbers, f"{version.prerelease}.0", 3)  # the least identifier more
    if version.given == 3:
        major, minor, patch = version.numbers
        return Version((major, minor, patch + 1), "0", 3)
    return _next(version.numbers, version.given - 1)


def _next(numbers: Numbers, position: int) -> Version:
    """The next version at `position`, its prereleases included: 0 is the least of them."""
    major, minor, patch = numbers
    following = ((major + 1, 0, 0), (major, minor + 1, 0), (major, minor, patch + 1))[position]
    return Version(following, "0", 3)


def _first_nonzero(version: Version) -> int:
    return next((position for position, number in enumerate(version.numbers) if number), 2)


def _identifiers(prerelease: str) -> tuple[_Identifier, ...]:
    """Numbers order as numbers and before texts."""
    parts = prerelease.split(".") if prerelease else []
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)
