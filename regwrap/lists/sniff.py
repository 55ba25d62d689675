"""Whether a list is a plain one, by what its first line says. Most are, and what reads the others stays unloaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.core.model import Digest

UTF8_BOM: Final = b"\xef\xbb\xbf"
# No image begins so: none has a colon at its end, a quote, a brace or a dash. `[` may be an IPv6 address, `{{` is a
# template of somebody's.
_START: Final = re.compile(rb"""\S+:(?:\s|$)|\{(?!\{)|["']|-(?:\s|$)|\[\s*(?:[\["'{\]]|$)|---(?:\s|$)|%YAML""")
# `team/app:` is an image without its tag, unless something belongs to it below; so is `app:` above another image.
_NO_TAG: Final = re.compile(rb"""[^\s"']*/[^\s:"']*:""")
_NO_TAG_ABOVE: Final = re.compile(rb"""[^\s:"']+:""")
_IMAGE: Final = re.compile(rb"""[^\s:"'{\[-][^\s"'{\[]*:[^\s"'/]+(?:\s.*)?""")


def is_document(data: bytes) -> bool:
    """Whether the first line that says something cannot be a plain list's, but is YAML's or JSON's."""
    lines = _lines_that_tell(data)
    first, second = next(lines, b""), next(lines, b"")
    if _NO_TAG.fullmatch(first.strip()) and not second.startswith((b" ", b"\t", b"-")):
        return False
    if _NO_TAG_ABOVE.fullmatch(first.strip()) and _IMAGE.fullmatch(second):
        return False
    return _START.match(first.strip()) is not None


def _lines_that_tell(data: bytes) -> Iterator[bytes]:
    lines = (match[0].rstrip(b" \t\r") for match in re.finditer(rb"[^\n]+", data.removeprefix(UTF8_BOM)))
    return (line for line in lines if line and not line.lstrip(b" \t").startswith(b"#"))


def untagged_tag(digest: Digest) -> str:
    """Not `sha256-…` alone: that is where registries look for an image's signatures."""
    return f"sha256-{digest.hex}.untagged"
