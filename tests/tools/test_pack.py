"""Packing with the real GNU tar: the same bytes everywhere, and never a bundle with rotten bytes in it."""

import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.pack import PackOptions, packed_bundle
from regwrap.bundle.select import Selection, select_images
from regwrap.core.errors import BrokenBlobError, IntegrityError, ToolError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.tools.runner import Runner
from regwrap.tools.tar import create_tar
from tests.builders import flip, make_image, make_multi_image, make_storage, remove, truncate
from tests.bundles import listed, packed, parts_of

pytestmark = pytest.mark.tools("tar")

BIG = make_image("big", layers=[bytes(range(256)) * 5000, b"small layer\n" * 100])
LONG = f"{'deep/' * 20}app"
IMAGES = {"a/b:1": make_multi_image("multi"), "big:1": BIG, f"{LONG}:{'v' * 128}": make_image("long")}
LAYER = Digest.of(BIG.blobs[1])


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    root = make_storage(tmp_path / "archive", IMAGES)
    return select_images(Storage(root), tuple(map(listed, IMAGES)))


def pack(runner: Runner, selection: Selection, output: Path, *, hashed: bool = True) -> int:
    scratch = output.parent / f"scratch-{output.name}"
    scratch.mkdir()
    with packed_bundle(
        runner, selection, output, PackOptions(scratch=scratch, hashed=hashed, stall=60), Silent()
    ) as size:
        return size


def left_over(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("out*")}


def test_the_bytes_are_those_of_the_format(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    size = pack(real_runner, selection, tmp_path / "out.tar")
    data = (tmp_path / "out.tar").read_bytes()
    assert len(data) == size
    assert data == packed(parts_of(selection.contents, selection.storage.root))
    assert any(len(part.name) > 300 for part in parts_of(selection.contents, selection.storage.root))
    assert left_over(tmp_path) == {"out.tar"}
    assert verify_bundle(tmp_path / "out.tar", tuple(map(listed, IMAGES)), SILENT).problems == ()


def test_gnu_tar_would_write_the_links_the_same_way(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    root, contents = selection.storage.root, selection.contents
    (tmp_path / "bundle.json").write_bytes(contents.to_json())
    parts = [(tmp_path, ["bundle.json"]), (root, [member.path for member in contents.members])]
    with (tmp_path / "out.tar").open("wb") as out:
        create_tar(real_runner, out.fileno(), parts, scratch=tmp_path, stall=60)
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(contents, root))


def test_the_environment_has_no_effect_on_the_bytes(
    real_runner: Runner, selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(real_runner, selection, tmp_path / "out-1.tar")
    for name, value in (
        ("TZ", "Asia/Tokyo"), ("LANG", "tr_TR.UTF-8"), ("LC_ALL", "C"), ("TAR_OPTIONS", "--mode=0777 --gzip"),
        ("SOURCE_DATE_EPOCH", "1"), ("POSIXLY_CORRECT", "1"), ("TAPE", "/nowhere"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    for path in selection.storage.root.rglob("data"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    before = os.umask(0o077)
    try:
        pack(real_runner, selection, tmp_path / "out-2.tar")
    finally:
        os.umask(before)
    assert (tmp_path / "out-1.tar").read_bytes() == (tmp_path / "out-2.tar").read_bytes()
    assert (tmp_path / "out-2.tar").stat().st_mode & 0o777 == 0o644


def test_hard_linked_blobs_are_packed_as_files(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    for number, path in enumerate(selection.storage.root.rglob("data")):
        path.chmod(0o644)
        (tmp_path / f"link-{number}").hardlink_to(path)
    pack(real_runner, selection, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(selection.contents, selection.storage.root))


def test_a_plain_tar_unpacks_it_to_a_sound_storage(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    pack(real_runner, selection, tmp_path / "out.tar")
    root = tmp_path / "customer"
    root.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "out.tar", "-C", root], check=True)
    report = verify_storage(root, tuple(map(listed, IMAGES)), SILENT)
    assert (report.problems, report.notes, report.images) == ((), (), len(IMAGES))


def test_no_images_are_an_empty_bundle(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    none = select_images(selection.storage, ())
    pack(real_runner, none, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(none.contents, tmp_path))


def test_a_rotten_blob_is_found_and_nothing_is_left(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    flip(selection.path(LAYER))
    with pytest.raises(BrokenBlobError) as caught:
        pack(real_runner, selection, tmp_path / "out.tar")
    assert caught.value.problems == (f"big:1: blob {LAYER} does not match its digest ({selection.path(LAYER)})",)
    assert left_over(tmp_path) == set()


def test_without_hashing_a_rotten_blob_is_packed(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    flip(selection.path(LAYER))
    pack(real_runner, selection, tmp_path / "out.tar", hashed=False)
    report = verify_bundle(tmp_path / "out.tar", None, SILENT)
    assert report.problems == (f"blob {LAYER} does not match its digest ({layout.blob_path(LAYER)})",)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100_000))


@pytest.mark.parametrize("damage", [truncate, cut_in_half, grow])
def test_a_blob_of_another_size_since_the_selection_is_the_only_one_named(
    real_runner: Runner, selection: Selection, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(selection.path(LAYER))
    with pytest.raises(BrokenBlobError) as caught:
        pack(real_runner, selection, tmp_path / "out.tar")
    assert caught.value.problems == (f"big:1: blob {LAYER} does not match its digest ({selection.path(LAYER)})",)
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("damage", [truncate, cut_in_half, grow])
def test_without_hashing_another_size_is_still_found(
    real_runner: Runner, selection: Selection, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(selection.path(LAYER))
    with pytest.raises(IntegrityError):
        pack(real_runner, selection, tmp_path / "out.tar", hashed=False)
    assert left_over(tmp_path) == set()


def test_a_blob_that_went_away_is_a_failure(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    remove(selection.path(LAYER))
    with pytest.raises(ToolError):
        pack(real_runner, selection, tmp_path / "out.tar")
    assert left_over(tmp_path) == set()


def test_a_failure_leaves_the_old_bundle(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "out.tar").write_bytes(b"the last release")
    flip(selection.path(LAYER))
    with pytest.raises(BrokenBlobError):
        pack(real_runner, selection, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == b"the last release"


def test_what_a_killed_run_left_is_taken_over(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "out.tar.regwrap-01234567.part").write_bytes(b"x" * 10_000_000)
    (tmp_path / "out.tar.regwrap-01234567.part").chmod(0o600)
    pack(real_runner, selection, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(selection.contents, selection.storage.root))
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o644
    assert left_over(tmp_path) == {"out.tar"}


def test_a_second_writer_is_refused(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    with (tmp_path / "out.tar.regwrap-01234567.part").open("wb") as other:
        other.write(b"half")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another regwrap is writing"):
            pack(real_runner, selection, tmp_path / "out.tar")
    assert (tmp_path / "out.tar.regwrap-01234567.part").read_bytes() == b"half"
    assert left_over(tmp_path) == {"out.tar.regwrap-01234567.part"}


def test_a_part_file_that_is_a_symbolic_link_is_not_followed(
    real_runner: Runner, selection: Selection, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    for name in ("out.tar.part", "out.tar.regwrap-01234567.part"):
        (tmp_path / name).symlink_to(victim)
    pack(real_runner, selection, tmp_path / "out.tar")
    assert victim.read_bytes() == b"mine"


def test_the_output_has_to_be_a_file_in_a_directory(real_runner: Runner, selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "out.d").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        pack(real_runner, selection, tmp_path / "out.d")
    os.mkfifo(tmp_path / "out.fifo")
    with pytest.raises(UsageError, match="not a regular file"):
        pack(real_runner, selection, tmp_path / "out.fifo")
    for number, output in enumerate((tmp_path / "absent/out.tar", tmp_path / "victim/out.tar")):
        options = PackOptions(scratch=tmp_path / f"{number}", hashed=True, stall=60)
        with (
            pytest.raises(UsageError, match="is not a directory"),
            packed_bundle(real_runner, selection, output, options, Silent()),
        ):
            pytest.fail("it was written")
    assert left_over(tmp_path) == {"out.d", "out.fifo"}


def test_a_disk_that_becomes_full_has_its_name(real_runner: Runner, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (tmp_path / "file").write_bytes(bytes(300_000))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", small], check=True)
    try:
        with (
            (small / "out.tar").open("wb") as out,
            pytest.raises(ToolError, match=r"no space left on device for .*small/out\.tar") as caught,
        ):
            create_tar(real_runner, out.fileno(), [(tmp_path, ["file"])], scratch=tmp_path, stall=60)
        assert "the disk is full" in caught.value.hint
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_that_tar_cannot_read_is_damage_and_no_failure_of_tar(real_runner: Runner, tmp_path: Path) -> None:
    """A file of the kernel's has a size, and gives nothing."""
    with (tmp_path / "out.tar").open("wb") as out, pytest.raises(IntegrityError, match="Read error at byte 0"):
        create_tar(real_runner, out.fileno(), [(Path("/sys/class/net/lo"), ["speed"])], scratch=tmp_path, stall=60)
