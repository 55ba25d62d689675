"""A bundle's file gets its name when all of it is on the disk, and what stood beside an earlier one goes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from regwrap.bundle.aside import Part
from regwrap.bundle.output import forget_parity, published
from regwrap.core.errors import ToolError
from regwrap.core.listener import SILENT
from tests.builders import make_image, put
from tests.bundles import make_bundle


@pytest.fixture
def made(tmp_path: Path) -> bytes:
    return make_bundle(tmp_path / "made", {"a:1": make_image("a")}).read_bytes()


def writing(data: bytes) -> Callable[[Part], None]:
    def write(part: Part) -> None:
        part.opened.write_bytes(data)

    return write


def test_a_bundle_is_on_the_disk_before_it_has_its_name_and_the_name_before_it_is_said(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut leaves a release that is zeros, or none where one was said to be."""
    real, seen, place = os.fsync, list[tuple[str, bool]](), tmp_path / "place"
    place.mkdir()

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name.partition("-")[0]
        seen.append((name, (place / "out.tar").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with published(place / "out.tar", len(made), writing(made), SILENT):
        assert seen == [("out.tar.regwrap", False)]
    assert seen[1:] == [("place", True)]
    assert (place / "out.tar").read_bytes() == made


def test_a_bundle_that_does_not_reach_the_disk_gets_no_name(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with (
        pytest.raises(OSError, match="Input/output error"),
        published(tmp_path / "out.tar", len(made), writing(made), SILENT),
    ):
        pytest.fail("it is not there")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_recovery_data_of_an_earlier_bundle_goes_and_that_of_another_one_stays(tmp_path: Path) -> None:
    """It would repair this release into the earlier one; a name may have letters that a pattern means something by."""
    bundle = put(tmp_path / "r[1]*?.tar", b"bundle")
    own = [put(tmp_path / f"{bundle.name}{end}", b"own") for end in (".par2", ".vol0+1.par2", ".vol01+2.par2")]
    others = [put(tmp_path / name, b"other") for name in ("r1xx.tar.vol0+1.par2", "r1xx.tar.par2", "r[1]*?.tar.sha256")]
    forget_parity(bundle)
    forget_parity(bundle)
    assert [path for path in own if path.exists()] == []
    assert all(path.exists() for path in (bundle, *others))


def test_what_stands_beside_an_earlier_bundle_goes_before_another_one_has_its_name(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is killed between leaves no checksum, and no recovery data, of another bundle."""
    put(tmp_path / "out.tar", b"earlier")
    for name in ("out.tar.sha256", "out.json", "out.tar.par2", "out.tar.vol0+1.par2"):
        put(tmp_path / name, b"of the earlier one")

    def rename(_old: Path, _new: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def write() -> None:
        with published(tmp_path / "out.tar", len(made), writing(made), SILENT):
            assert (tmp_path / "out.tar.sha256").exists()

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="Input/output error"):
        write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out.tar"]


def test_what_a_killed_run_left_of_the_same_bundle_takes_no_room_from_it(
    tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is as large as this one will be, and goes at once: a disk that has room for one bundle is enough."""
    left = put(tmp_path / "out.tar.regwrap-00000000.part", b"half")

    def statvfs(_path: Path) -> SimpleNamespace:
        free = len(made) - left.exists()
        return SimpleNamespace(f_bavail=free, f_frsize=1, f_blocks=10**9, f_files=10**6, f_favail=10**6)

    monkeypatch.setattr(os, "statvfs", statvfs)
    with published(tmp_path / "out.tar", len(made), writing(made), SILENT):
        pass
    assert (tmp_path / "out.tar").read_bytes() == made
    with (
        pytest.raises(ToolError, match="not enough space"),
        published(tmp_path / "out.tar", len(made) + 1, writing(made), SILENT),
    ):
        pytest.fail("it has no room")
    assert (tmp_path / "out.tar").read_bytes() == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out.tar"]
