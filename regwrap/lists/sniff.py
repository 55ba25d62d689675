"""Whether a list is a plain one, by what its first line says. Most are, and what reads the others stays unloaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from regwrap.core.model import Digest

UTF8_BOM: Final = b"\xef\xbb\xbf"
# No image begins so: none has a colon at its end, a quote or a brace. `[` may be an IPv6 address.
_START: Final = re.compile(rb"""\S+:(?:\s|$)|[{"']|\[\s*(?:[\["'{\]]|$)|---(?:\s|$)|%YAML""")


def is_document(data: bytes) -> bool:
    """Whether the first line that says something can't be a plain list's, but is YAML's or JSON's."""
    return _START.match(first_line(data)) is not None


def first_line(data: bytes) -> bytes:
    lines = (match[0].strip(b" \t\r") for match in re.finditer(rb"[^\n]+", data.removeprefix(UTF8_BOM)))
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


def untagged_tag(digest: Digest) -> str:
    """Not `sha256-…` alone: that is where registries look for an image's signatures."""
    return f"sha256-{digest.hex}.untagged"
