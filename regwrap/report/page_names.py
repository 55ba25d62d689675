"""Names of images where there is little room: each as short as still tells it from the others. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_WORD: Final = re.compile(r"[^-_./]*[-_./]?")
_MANY: Final = 3  # images that begin alike
_FEWEST_LETTERS: Final = 5
_CUT: Final = "…"


def names_apart(images: Iterable[str]) -> dict[str, str]:
    """As many of the last parts of each repository as no other one ends with, and the tag; without the first words
    that most of them share."""
    found = {image: image.rpartition(":") for image in images}
    tails = _tails({repository for repository, _colon, _tag in found.values()})
    begin = _common_begin(tails.values())
    return {image: f"{_without(begin, tails[name])}{colon}{tag}" for image, (name, colon, tag) in found.items()}


def _tails(repositories: Collection[str]) -> Mapping[str, str]:
    """The shortest end of each that is no other's."""
    users = Counter(end for repository in repositories for end in _ends(repository))
    return {name: next((end for end in _ends(name) if users[end] == 1), name) for name in repositories}


def _ends(repository: str) -> list[str]:
    parts = repository.split("/")
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _common_begin(names: Collection[str]) -> str:
    """Whole words with which more than half of the names begin."""
    begin = ""
    while True:
        inside = (name for name in names if name.startswith(begin))
        words = Counter(
            match[0] for name in inside if (match := _WORD.match(name, len(begin))) and match.end() < len(name)
        )
        word, count = max(words.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if not word or count < _MANY or 2 * count <= len(names):
            return begin
        begin += word


def _without(begin: str, name: str) -> str:
    shorter = name.removeprefix(begin)
    return f"{_CUT}{shorter}" if shorter != name and shorter and len(begin) > len(_CUT) else name


def fitted(name: str, letters: int) -> str:
    """What there is room for: the name, the name without its tag, or the two ends of that; empty where that is too
    little."""
    bare = name.rpartition(":")[0] or name
    whole = next((text for text in (name, bare) if len(text) <= letters), "")
    if whole or letters < _FEWEST_LETTERS:
        return whole
    end = letters // 2
    return f"{bare[: letters - end - 1]}{_CUT}{bare[-end:]}"
