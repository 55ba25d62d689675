"""A tag that is another image than it was, or shall be one: what every command says of it in the same words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regwrap.core.model import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TagMove:
    """`image` is REPOSITORY:TAG; `old` is None where there was no such tag."""

    image: str
    old: Digest | None
    new: Digest


class Existing(StrEnum):
    """What happens to a tag that is there already and is another image."""

    FAIL = "fail"
    SKIP = "skip"
    REPLACE = "replace"


class PlatformIndex(StrEnum):
    """What is pushed of an image of which some platforms are left out: its index as it is, or one of what is there."""

    KEEP = "keep"
    REWRITE = "rewrite"
