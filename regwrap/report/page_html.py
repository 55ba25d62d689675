"""HTML as values: what is not Markup is text, and text is always escaped, since names come from others."""

from __future__ import annotations

import html
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LONGEST: Final = 2000
# No script, no request, no form, whatever a name may hold; the empty icon keeps a browser from asking for one.
_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
base-uri 'none'; form-action 'none'">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
"""


@dataclass(frozen=True, slots=True)
class Markup:
    """HTML that is whole and escaped already."""

    text: str


Content = Markup | str


def tag(name: str, attributes: Mapping[str, str], *children: Content) -> Markup:
    """An element with its closing tag."""
    shown = "".join(f' {key}="{escaped(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{shown}>{joined(children).text}</{name}>")


def joined(parts: Iterable[Content]) -> Markup:
    return Markup("".join(part.text if isinstance(part, Markup) else escaped(part) for part in parts))


def escaped(text: str) -> str:
    """Bounded, and without what a browser would not show: controls, marks that turn the direction, lone surrogates."""
    bounded = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in bounded)
    return html.escape(shown)


def document(title: str, body: Iterable[Content]) -> str:
    """A whole page."""
    style = resources.files("regwrap.report").joinpath("page.css").read_text(encoding="utf-8")
    heading = tag("title", {}, title).text
    return f"{_HEAD}{heading}\n<style>\n{style}</style>\n</head>\n<body>\n{joined(body).text}\n</body>\n</html>\n"
