"""Packing with a tar that does what it is told, or less: never a bundle with other bytes, never a half one in place."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.pack import PackOptions, packed_bundle
from regwrap.bundle.select import Selection, select_images
from regwrap.core.errors import BrokenBlobError, IntegrityError, ToolError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.storage.store import Storage
from tests.builders import Image, flip, make_image, make_multi_image, make_storage, truncate
from tests.bundles import listed, packed, parts_of
from tests.fakes import Answer, Argv, Scripted
from tests.lost import lose
from tests.unit.cli import programs

BIG = make_image("big", layers=[bytes(range(256)) * 500, b"small layer\n" * 100])
IMAGES = {"a/b:1": make_multi_image("multi"), "big:1": BIG, f"{'deep/' * 20}app:{'v' * 128}": make_image("long")}
LAYER = Digest.of(BIG.blobs[1])


class Progress(Silent):
    done = 0

    def on_bytes(self, count: int, /) -> None:
        self.done += count


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    return select_images(Storage(make_storage(tmp_path / "archive", IMAGES)), tuple(map(listed, IMAGES)))


def pack(
    scripted: Scripted,
    selection: Selection,
    output: Path,
    *,
    hashed: bool = True,
    then: Callable[[Path], object] = lambda _part: None,
    wrong: Callable[[Path], object] = lambda _made: None,
    listener: Silent | None = None,
    stderr: bytes = b"",
) -> int:
    """`then` happens to the file that tar has written, before it ends; `wrong` to what it is going to write, since
    threads hash what is there already."""
    tar = programs.tar()

    def write(argv: Argv) -> None:
        place, made = argv.index("--file") + 1, scratch / "made.tar"
        assert tar.effect is not None
        tar.effect((*argv[:place], f"{made}", *argv[place + 1 :]))
        wrong(made)
        Path(argv[place]).write_bytes(made.read_bytes())
        then(Path(argv[place]))

    scripted.launcher.answers.append(Answer(when=tar.when, effect=write, stderr=stderr, exit_code=2 if stderr else 0))
    scratch = output.parent / f"scratch-{len(scripted.launcher.answers)}"
    scratch.mkdir()
    options = PackOptions(scratch=scratch, hashed=hashed, stall=60)
    with packed_bundle(scripted.runner, selection, output, options, listener or Silent()) as size:
        assert not output.exists() or output.read_bytes() == b"the last release"
        return size


def left_over(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("out*")}


def other_bytes(path: Path) -> None:
    """Of the layer, as a disk or a tar that went wrong has them."""
    data = path.read_bytes()
    path.write_bytes(data.replace(BIG.blobs[1][:600], bytes(600)))


def test_the_bytes_are_those_of_the_format_and_the_name_comes_last(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    progress, before = Progress(), os.umask(0o077)
    try:
        size = pack(scripted, selection, tmp_path / "out.tar", listener=progress)
    finally:
        os.umask(before)
    data = (tmp_path / "out.tar").read_bytes()
    assert len(data) == size
    assert data == packed(parts_of(selection.contents, selection.storage.root))
    assert left_over(tmp_path) == {"out.tar"}
    assert (tmp_path / "out.tar").stat().st_mode & 0o777 == 0o644
    assert progress.done == selection.contents.blob_bytes
    assert verify_bundle(tmp_path / "out.tar", tuple(map(listed, IMAGES)), SILENT).problems == ()


def test_no_images_are_an_empty_bundle(scripted: Scripted, selection: Selection, tmp_path: Path) -> None:
    none = select_images(selection.storage, ())
    pack(scripted, none, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == packed(parts_of(none.contents, tmp_path))


def test_a_blob_that_has_rotten_in_the_archive_is_named_with_its_image_and_file(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    flip(selection.path(LAYER))
    with pytest.raises(BrokenBlobError, match="no bundle was written") as caught:
        pack(scripted, selection, tmp_path / "out.tar")
    assert caught.value.problems == (f"big:1: blob {LAYER} does not match its digest ({selection.path(LAYER)})",)
    assert "regwrap sync --hash" in caught.value.hint
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("hashed", [True, False])
def test_a_blob_that_the_archive_s_disk_does_not_give_is_named_as_a_rotten_one_is(
    scripted: Scripted, selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hashed: bool
) -> None:
    """tar fills its place with zeros."""
    path = selection.path(LAYER)
    lose(monkeypatch, path, calls=("fdopen",))  # the tar that is told what to do can read it
    said = f"tar: {path}: Read error at byte 0, while reading 10240 bytes: Input/output error\n".encode()
    with pytest.raises(IntegrityError) as caught:
        pack(scripted, selection, tmp_path / "out.tar", hashed=hashed, wrong=other_bytes, stderr=said)
    assert left_over(tmp_path) == set()
    assert isinstance(caught.value, BrokenBlobError) is hashed
    if hashed:
        assert caught.value.problems == (f"big:1: blob {LAYER} cannot be read: Input/output error ({path})",)
    assert hashed or "Input/output error" in caught.value.detail


def test_what_tar_could_not_read_and_can_be_read_now_is_told_as_tar_said_it(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    path = selection.path(LAYER)
    said = f"tar: {path}: Read error at byte 0, while reading 10240 bytes: Input/output error\n".encode()
    with pytest.raises(BrokenBlobError) as caught:
        pack(scripted, selection, tmp_path / "out.tar", wrong=other_bytes, stderr=said)
    (problem,) = caught.value.problems
    assert problem.startswith(f"big:1: blob {LAYER} cannot be read: ")
    assert "Input/output error" in problem


def test_without_hashing_rot_is_packed(scripted: Scripted, selection: Selection, tmp_path: Path) -> None:
    flip(selection.path(LAYER))
    pack(scripted, selection, tmp_path / "out.tar", hashed=False)
    assert len(verify_bundle(tmp_path / "out.tar", None, SILENT).problems) == 1


def test_bytes_that_tar_wrote_wrong_are_found_though_the_archive_is_sound(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    """The blobs follow each other in the file, and are hashed there, not in the archive."""
    (tmp_path / "out.tar").write_bytes(b"the last release")

    with pytest.raises(BrokenBlobError) as caught:
        pack(scripted, selection, tmp_path / "out.tar", wrong=other_bytes)
    assert caught.value.problems == (f"big:1: blob {LAYER} does not match its digest ({selection.path(LAYER)})",)
    assert (tmp_path / "out.tar").read_bytes() == b"the last release"
    assert left_over(tmp_path) == {"out.tar"}


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(100_000))


@pytest.mark.parametrize("damage", [truncate, grow])
def test_a_blob_of_another_size_since_the_selection_is_the_only_one_named(
    scripted: Scripted, selection: Selection, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """It moves all that follow it in the file, and those are as they were."""
    damage(selection.path(LAYER))
    with pytest.raises(BrokenBlobError) as caught:
        pack(scripted, selection, tmp_path / "out.tar")
    assert caught.value.problems == (f"big:1: blob {LAYER} does not match its digest ({selection.path(LAYER)})",)
    with pytest.raises(IntegrityError):
        pack(scripted, selection, tmp_path / "out.tar", hashed=False)
    assert left_over(tmp_path) == set()


@pytest.mark.parametrize("hashed", [True, False])
def test_a_tar_that_stops_early_and_says_nothing_is_found_out(
    scripted: Scripted, selection: Selection, tmp_path: Path, *, hashed: bool
) -> None:
    with pytest.raises(IntegrityError) as raised:
        pack(scripted, selection, tmp_path / "out.tar", hashed=hashed, wrong=lambda path: os.truncate(path, 2000))
    named = [line.partition("blob ")[2] for line in raised.value.problems]
    assert len(named) > 5
    assert named == sorted(named)
    assert left_over(tmp_path) == set()


def test_of_what_is_wrong_in_the_bundle_only_what_is_rotten_in_the_archive_is_named(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    """Repairing the others would fetch for nothing."""
    config = Digest.of(BIG.blobs[0])
    flip(selection.path(config))
    with pytest.raises(BrokenBlobError) as caught:
        pack(scripted, selection, tmp_path / "out.tar", wrong=other_bytes)
    assert caught.value.problems == (f"big:1: blob {config} does not match its digest ({selection.path(config)})",)


@pytest.mark.slow
def test_links_are_made_and_not_taken_from_the_archive(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    """One of them may have been lost there, or be read for long from a slow disk: they follow from the contents."""
    whole = packed(parts_of(selection.contents, selection.storage.root))
    for member in selection.contents.members:
        if member.link is not None:
            (selection.storage.root / member.path).unlink()
    pack(scripted, selection, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == whole


def test_a_tar_that_fails_leaves_nothing(scripted: Scripted, selection: Selection, tmp_path: Path) -> None:
    scripted.launcher.answers.append(Answer(when=("tar",), exit_code=2, stderr=b"tar: data: Cannot open"))
    with pytest.raises(ToolError, match="Cannot open"):
        pack(scripted, selection, tmp_path / "out.tar")
    assert left_over(tmp_path) == set()


def test_an_error_of_whoever_gets_the_bundle_keeps_its_name_away(
    scripted: Scripted, selection: Selection, tmp_path: Path
) -> None:
    """As of the report that belongs beside it: no name without it."""
    scripted.launcher.answers.append(programs.tar())
    (tmp_path / "scratch").mkdir()
    options = PackOptions(scratch=tmp_path / "scratch", hashed=True, stall=60)
    packing = packed_bundle(scripted.runner, selection, tmp_path / "out.tar", options, Silent())
    with pytest.raises(ZeroDivisionError), packing:
        raise ZeroDivisionError
    assert left_over(tmp_path) == set()


def test_while_it_is_written_no_other_run_takes_it(scripted: Scripted, selection: Selection, tmp_path: Path) -> None:
    def look(part: Path) -> None:
        with part.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    pack(scripted, selection, tmp_path / "out.tar", then=look)
    with (tmp_path / "out.tar").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_locks_fail_nothing_is_left(
    scripted: Scripted, selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"):
        pack(scripted, selection, tmp_path / "out.tar")
    assert left_over(tmp_path) == set()


def test_the_output_has_to_be_a_file_in_a_directory(scripted: Scripted, selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "out.d").mkdir()
    os.mkfifo(tmp_path / "out.fifo")
    for output, said in (
        (tmp_path / "out.d", "is a directory; give a file"),
        (tmp_path / "out.fifo", "is not a regular file"),
        (tmp_path / "absent/out.tar", "absent is not a directory"),
    ):
        options = PackOptions(scratch=tmp_path, hashed=True, stall=60)
        with (
            pytest.raises(UsageError, match=said),
            packed_bundle(scripted.runner, selection, output, options, Silent()),
        ):
            pytest.fail("it was written")
    assert left_over(tmp_path) == {"out.d", "out.fifo"}


def test_a_disk_without_room_for_all_of_it_is_said_before_tar_starts(scripted: Scripted, tmp_path: Path) -> None:
    config = b'{"os": "linux", "architecture": "amd64"}'
    layer = Digest.of(b"")
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "x", "digest": f"{Digest.of(config)}", "size": len(config)},
            "layers": [{"mediaType": "x", "digest": f"{layer}", "size": 2**42}],
        }
    ).encode()
    storage = Storage(make_storage(tmp_path / "archive", {"huge:1": Image((raw,), (config, b""))}))
    os.truncate(storage.blob_path(layer), 2**42)
    with pytest.raises(ToolError, match="not enough space") as caught:
        pack(scripted, select_images(storage, (listed("huge:1"),)), tmp_path / "out.tar")
    assert "another disk with -o" in caught.value.hint
    assert scripted.launcher.started == []
    assert left_over(tmp_path) == set()
