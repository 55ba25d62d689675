"""Split a list so that several runs share it: each image is in exactly one shard. Pure.

Rendezvous hashing: which shard an image is in depends on it alone, so that a list that grows moves nothing else.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from regwrap.core.model import ParseError

if TYPE_CHECKING:
    from regwrap.lists.imagelist import ImageEntry, ImageList

MAX_SHARDS: Final = 1000
_SHARD: Final = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Shard:
    """The `number`th of `count`, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        match = _SHARD.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]) or int(match[2]) > MAX_SHARDS:
            raise ParseError(f"expected a shard such as 2/5, got {text[:60]!r}")
        return cls(int(match[1]), int(match[2]))

    def has(self, entry: ImageEntry) -> bool:
        return shard_of(shard_key(entry), self.count) == self.number

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def shard_images(images: ImageList, shard: Shard) -> ImageList:
    return replace(images, entries=tuple(entry for entry in images.entries if shard.has(entry)))


def shard_key(entry: ImageEntry) -> str:
    """What stays together: all tags of a source's repository, which share most of their layers."""
    return entry.source.name


def shard_of(key: str, count: int) -> int:
    """The shard with the highest score for the key; with one shard more only what goes to it moves."""
    scores = (hashlib.sha256(f"{number} {key}".encode()).digest() for number in range(1, count + 1))
    return max(enumerate(scores, start=1), key=lambda pair: pair[1])[0]
