"""The link members of a bundle as bytes: what GNU tar writes for a file of that name, without making the file.

Blobs are tar's work. Links are thousands of 71-byte files, each in a directory of its own: making and removing those
only for tar to read them takes longer than writing all the blobs.
"""

from typing import Final

from regwrap.bundle.contents import BLOCK, Member, padded

_SHORT_NAME: Final = 100
_LONG_NAME: Final = b"././@LongLink"


def link_bytes(member: Member) -> bytes:
    """Header, content and padding of one link member (tar(5), GNU format; the same fields as tools.tar sets)."""
    name, data = member.path.encode("ascii"), str(member.link).encode("ascii")
    return _long_name(name) + _header(name[:_SHORT_NAME], len(data), b"0") + _filled(data)


def _long_name(name: bytes) -> bytes:
    if len(name) <= _SHORT_NAME:
        return b""
    return _header(_LONG_NAME, len(name) + 1, b"L") + _filled(name + b"\0")


def _header(name: bytes, size: int, kind: bytes) -> bytes:
    mode_owner_group, time = b"0000644\0" + 2 * b"0000000\0", b"00000000000\0"
    start = name.ljust(100, b"\0") + mode_owner_group + b"%011o\0" % size + time
    end = (kind + bytes(100) + b"ustar  \0").ljust(BLOCK - 156, b"\0")
    # the sum is taken with its own eight bytes as blanks
    return start + b"%06o\0 " % (sum(start) + 8 * ord(" ") + sum(end)) + end


def _filled(data: bytes) -> bytes:
    return data.ljust(padded(len(data)), b"\0")
