"""Numbers of things, as people read them. One place for singular and plural."""

from __future__ import annotations


def counted(count: int, one: str, many: str = "", *, form: str = "") -> str:
    """`1 image`, `2 images`. `many` is for what differs in more than an s; `form` is the number's."""
    return f"{count:{form}} {one if count == 1 else many or f'{one}s'}"
