"""Headers and link members as bytes: what GNU tar writes for a file of that name, without making the file.

The reader compares each header with them, so a bundle has one form. Blobs are tar's work; links are thousands of
71-byte files, each in a directory of its own: making and removing those only for tar to read them takes longer than
writing all the blobs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from regwrap.bundle.contents import BLOCK, SHORT_NAME, Member, padded

_LONG_NAME: Final = b"././@LongLink"
MAGIC: Final = b"ustar  \0"  # GNU format
_REST: Final = MAGIC.ljust(BLOCK - 257, b"\0")


def link_bytes(member: Member) -> bytes:
    """Header, content and padding of one link member."""
    data = str(member.link).encode("ascii")
    return header_of(member.path, len(data)) + _filled(data)


def header_of(path: str, size: int) -> bytes:
    """The header of a member, its long name's included (tar(5), GNU format; the same fields as tools.tar sets)."""
    name = path.encode("ascii")
    return _long_name(name) + _header(name[:SHORT_NAME], size, b"0")


def directory_header(path: str) -> bytes:
    """The header of a directory, which the layer of an image needs; a bundle has none."""
    name = f"{path}/".encode("ascii")
    return _long_name(name) + _header(name[:SHORT_NAME], 0, b"5")


def _long_name(name: bytes) -> bytes:
    if len(name) <= SHORT_NAME:
        return b""
    return _long_name_header(len(name) + 1) + _filled(name + b"\0")


@lru_cache(maxsize=64)  # every link's path is long, and most have one of a few lengths
def _long_name_header(length: int) -> bytes:
    return _header(_LONG_NAME, length, b"L")


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    mode = b"0000755\0" if kind == b"5" else b"0000644\0"
    mode_owner_group, time = mode + 2 * b"0000000\0", b"00000000000\0"
    # eleven octal digits end at 8 GiB; GNU tar goes on in base 256
    length = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    start = name.ljust(100, b"\0") + mode_owner_group + length + time
    # the sum is taken with its own eight bytes as blanks; zeros add nothing to it
    return start + b"%06o\0 " % (sum(start) + 8 * ord(" ") + sum(kind + MAGIC)) + kind + bytes(100) + _REST


def _filled(data: bytes) -> bytes:
    return data.ljust(padded(len(data)), b"\0")
