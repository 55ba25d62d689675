"""Rules that stand for many images: a pattern of repositories and tags, a range of versions, the newest of them. Pure.

What a rule means changes from day to day, so only `regwrap lock` asks a registry for it; all else reads the lock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from regwrap.core.model import ImageRef, ParseError, Platform, is_host
from regwrap.lists.semver import Version, VersionRange, parse_range, parse_version

_WILD: Final = re.compile(r"\*\*|\*|\?")
_REPOSITORY_PATTERN: Final = re.compile(r"[a-z0-9._*?-]+(?:/[a-z0-9._*?-]+)*")
_TAG_PATTERN: Final = re.compile(r"[A-Za-z0-9._*?-]+")
_REGEXES: Final = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """`[HOST/]REPOSITORY[:TAG]` with wildcards: `*` and `?` within a component, `**` across them."""

    text: str
    registry: str | None
    repository: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Match:
        name, _, tag = text.rpartition(":") if ":" in text.rpartition("/")[2] else (text, "", "*")
        first, slash, rest = name.partition("/")
        is_named = bool(slash) and ("." in first or ":" in first or first == "localhost") and not _WILD.search(first)
        if is_named and not is_host(first):
            raise ParseError(f"not a host: {first[:60]!r}")
        repository = rest if is_named else name
        if not _REPOSITORY_PATTERN.fullmatch(repository):
            raise ParseError(f"expected [HOST/]REPOSITORY[:TAG] with *, ? or **, got {text[:60]!r}")
        if not _TAG_PATTERN.fullmatch(tag):
            raise ParseError(f"{tag[:60]!r} is not a tag pattern")
        if is_named and first == "docker.io" and "/" not in repository:
            repository = f"library/{repository}"
        return cls(text=text, registry=first if is_named else None, repository=repository, tag=tag)

    @property
    def is_one_repository(self) -> bool:
        """Whether the registry need not be asked which repositories it has."""
        return not _WILD.search(self.repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """The tags that fit `match` and `semver`, of them the `newest` of each repository by version."""

    match: Match
    semver: VersionRange | None
    newest: int | None
    platforms: tuple[Platform, ...]

    def fits(self, image: ImageRef) -> bool:
        """Whether the rule may have added this image, as far as its name tells."""
        return (
            image.registry == self.match.registry
            and self.fits_repository(image.repository)
            and bool(self.chosen((image.tag or "",)))
        )

    def fits_repository(self, repository: str) -> bool:
        return _fits(self.match.repository, repository)

    def chosen(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        """The tags of one repository that the rule means, in plain order; those that are no versions only where
        neither `semver` nor `newest` asks for one."""
        fitting = sorted(tag for tag in set(tags) if _fits(self.match.tag, tag))
        if self.semver is None and self.newest is None:
            return tuple(fitting)
        versions = [(version, tag) for tag in fitting if (version := parse_version(tag)) and self._allows(version)]
        newest = sorted(versions, key=lambda pair: (pair[0].key, pair[0].given, pair[1]), reverse=True)
        return tuple(sorted(tag for _version, tag in newest[: self.newest]))

    def _allows(self, version: Version) -> bool:
        return self.semver.holds(version) if self.semver else not version.prerelease


def make_rule(match: str, *, semver: str | None, newest: int | None, platforms: tuple[Platform, ...]) -> ImageRule:
    """Raises ParseError."""
    return ImageRule(
        match=Match.parse(match), semver=parse_range(semver) if semver else None, newest=newest, platforms=platforms
    )


def rule_line(rule: ImageRule, repository: str, tag: str) -> str:
    """A line of a list that says one image of what the rule means."""
    host = f"{rule.match.registry}/" if rule.match.registry else ""
    options = f" platform={','.join(map(str, rule.platforms))}" if rule.platforms else ""
    return f"{host}{repository}:{tag}{options}"


def _fits(pattern: str, text: str) -> bool:
    parts, position = [], 0
    for wild in _WILD.finditer(pattern):
        parts += [re.escape(pattern[position : wild.start()]), _REGEXES[wild[0]]]
        position = wild.end()
    return re.fullmatch("".join([*parts, re.escape(pattern[position:])]), text) is not None
