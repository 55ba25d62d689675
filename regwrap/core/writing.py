"""Bytes to a place of an open file, however many calls the kernel wants for them."""

from __future__ import annotations

import os


def write_all_at(descriptor: int, data: bytes | memoryview, position: int) -> None:
    """A disk that is nearly full takes a part (pwrite(2)), and says so only when asked again. Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, position)
        view, position = view[done:], position + done
