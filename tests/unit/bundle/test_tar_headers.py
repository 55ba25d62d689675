"""Headers are those of GNU tar, at every length of a name and size of a file, and their length is known before."""

import tarfile

import pytest

from regwrap.bundle.contents import BundleContents, header_bytes
from regwrap.bundle.write import directory_header, header_of
from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.bundles import Part, packed

_LENGTHS = (1, 98, 99, 100, 101, 102, 510, 511, 512, 513, 600)


def gnu(name: str, size: int, mode: int, kind: bytes = tarfile.REGTYPE) -> tuple[int, tuple[object, ...]]:
    """What Python's tarfile writes: its length, and what its last block says."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.type = size, mode, 0, kind
    return said(info.tobuf(tarfile.GNU_FORMAT))


def said(header: bytes) -> tuple[int, tuple[object, ...]]:
    info = tarfile.TarInfo.frombuf(header[-tarfile.BLOCKSIZE :], "ascii", "strict")  # checks the sum
    fields = (info.name, info.size, info.mode, info.uid, info.gid, info.mtime, info.type, header[-255:-247])
    return len(header), fields


@pytest.mark.parametrize("size", [0, 71, 8**11 - 1, 8**11, 8**12])
def test_a_files_header_is_gnu_tars(size: int) -> None:
    for length in _LENGTHS:
        name = "n" * length
        assert said(header_of(name, size)) == gnu(name, size, 0o644), f"{length} bytes of name"


def test_a_directorys_header_is_gnu_tars() -> None:
    for length in _LENGTHS:
        name = "n" * length
        assert said(directory_header(name)) == gnu(name, 0, 0o755, tarfile.DIRTYPE), f"{length} bytes of name"


@pytest.mark.parametrize("length", _LENGTHS)
def test_a_long_name_is_a_member_of_its_own_and_ends_with_a_zero(length: int) -> None:
    name = "n" * length
    blocks = header_of(name, 1)
    if length <= 100:
        assert len(blocks) == 512
        return
    info = tarfile.TarInfo.frombuf(blocks[:512], "ascii", "strict")
    assert (info.name, info.size, info.type) == ("././@LongLink", length + 1, tarfile.GNUTYPE_LONGNAME)
    assert blocks[512:-512] == name.encode() + bytes(len(blocks) - 1024 - length)


def test_the_length_of_a_header_is_known_before_it_is_made() -> None:
    for length in (*range(95, 105), *range(505, 515), *range(1015, 1030)):
        assert header_bytes("n" * length) == len(header_of("n" * length, 0))


@pytest.mark.parametrize("blocks", range(118, 130))
def test_the_size_of_a_bundle_is_known_before_at_the_end_of_a_record_too(blocks: int) -> None:
    """A disk is asked for that room; what is written behind it would be cut off."""
    digest, size = Digest.of(b"x"), 512 * blocks
    contents = BundleContents(images=(), repositories=(), blobs=((digest, size),))
    parts = [Part("bundle.json", contents.to_json()), Part(layout.blob_path(digest), bytes(size))]
    assert contents.tar_bytes == len(packed(parts))
