"""Files that appear whole or not at all, in a directory that somebody else may write to."""

import errno
import fcntl
import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from regwrap.bundle.aside import give_back, kept_part_file, part_file, write_atomically
from regwrap.core.errors import UsageError
from tests.builders import open_below, put
from tests.interruptions import interrupted_at

PART = "out.regwrap-00000000.part"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_stands_beside_a_bundle_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "r.tar.sha256", "text\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.tar.sha256").stat().st_mode) == 0o644


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", b"precious")
    for name in ("r.tar.sha256", "r.tar.sha256.part", "r.tar.sha256.regwrap-01234567.part"):
        (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "r.tar.sha256", "text\n")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "r.tar.sha256").is_symlink()
    assert (tmp_path / "r.tar.sha256").read_text() == "text\n"


def test_bytes_are_on_the_disk_before_they_have_their_name_and_the_name_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves the old file or the new one, never an empty one, and never none that was said to be there."""
    real, seen = os.fsync, list[tuple[str, bool]]()

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name.partition("-")[0]
        seen.append((name, (tmp_path / "out").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "out", "text")
    assert seen == [("out.regwrap", False), (tmp_path.name.partition("-")[0], True)]


def test_no_two_names_are_the_same_and_none_is_left(tmp_path: Path) -> None:
    names = set()
    for _ in range(20):
        with part_file(tmp_path / "out") as part:
            names.add(part.path.name)
    assert len(names) == 20
    assert list(tmp_path.iterdir()) == []


def test_what_gets_the_name_meanwhile_is_not_what_is_written(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", b"precious")
    with part_file(tmp_path / "out") as part:
        part.path.unlink()
        part.path.symlink_to(victim)
        part.opened.write_bytes(b"ours")
    assert victim.read_bytes() == b"precious"


def test_a_dead_run_s_file_goes_and_a_living_one_s_stays(tmp_path: Path) -> None:
    dead = put(tmp_path / "out.regwrap-00000000.part", b"half")
    other = put(tmp_path / "other.regwrap-00000000.part", b"half")
    with part_file(tmp_path / "out"):
        assert not dead.exists()
        with pytest.raises(UsageError, match=r"another regwrap is writing .*out now"), part_file(tmp_path / "out"):
            pass
        assert len(list(tmp_path.glob("out*"))) == 1
    assert other.exists()


def test_a_file_that_another_user_planted_is_left_alone(tmp_path: Path) -> None:
    """He can lock it, and keep nobody from working."""
    planted = put(tmp_path / "out.regwrap-00000000.part", b"his")
    if os.geteuid() == 0:
        os.chown(planted, 65534, -1)
    else:
        planted.unlink()
        planted.mkdir()  # what we can make that is not a file of ours
    with planted.open("rb") if planted.is_file() else open(os.devnull, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write_atomically(tmp_path / "out", "text")
    assert (tmp_path / "out").read_text() == "text"


@pytest.mark.slow
@pytest.mark.usefixtures("handled_signals")
def test_a_signal_at_any_moment_leaves_the_old_file_or_the_new_one_and_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(output := tmp_path / "out", b"new")
    output.write_bytes(b"old")
    number, found = 1, set()
    while interrupted_at(number, lambda: write_atomically(output, b"new")):
        assert list(tmp_path.iterdir()) == [output], f"moment {number}"
        found.add(output.read_bytes())
        output.write_bytes(b"old")
        number += 1
    assert found == {b"old", b"new"}


@pytest.mark.slow
@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("left", [0, 2])
def test_of_what_earlier_runs_left_the_last_stays_until_it_has_its_name(tmp_path: Path, left: int) -> None:
    def work() -> None:
        with kept_part_file(tmp_path / "out") as kept:
            kept.part.path.rename(tmp_path / "out")

    work()
    (tmp_path / "out").unlink()
    number, is_new = 1, False
    while True:
        for name in "ab"[:left]:
            put(tmp_path / f"out.regwrap-0123456{name}.part", b"")
        if not interrupted_at(number, work):
            break
        is_new = is_new or (tmp_path / "out").exists()
        rest = [path.name for path in tmp_path.iterdir() if path.name != "out"]
        assert (tmp_path / "out").exists() or len(rest) in {left, min(left, 1)}, f"moment {number}: {rest}"
        assert not (tmp_path / "out").exists() or not rest, f"moment {number}: {rest}"
        for path in tmp_path.iterdir():
            path.unlink()
        number += 1
    assert is_new


def test_of_two_runs_that_begin_at_the_same_moment_one_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one begins between the first look and the new name."""
    real = os.urandom
    with ExitStack() as other:

        def urandom(count: int) -> bytes:
            monkeypatch.setattr(os, "urandom", real)
            other.enter_context(part_file(tmp_path / "out"))
            return real(count)

        monkeypatch.setattr(os, "urandom", urandom)
        with pytest.raises(UsageError, match="another regwrap is writing"), part_file(tmp_path / "out"):
            pytest.fail("two write one file")
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_closed_again(tmp_path: Path) -> None:
    """A run that packs a thousand releases would have no descriptors left."""
    put(tmp_path / PART, b"half")
    write_atomically(tmp_path / "out", "text")
    for number in (1, 2):
        put(tmp_path / f"out.regwrap-0000000{number}.part", b"half")
    with kept_part_file(tmp_path / "out") as kept:
        assert open_below(tmp_path) == [f"{kept.part.path}"]
        for again in (part_file, kept_part_file):
            with pytest.raises(UsageError, match="another regwrap is writing"):
                again(tmp_path / "out").__enter__()
            assert open_below(tmp_path) == [f"{kept.part.path}"]
        kept.is_wanted = False
    assert open_below(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("call", ["flock", "fchmod", "the second fchmod", "fsync"])
def test_what_a_disk_refuses_is_told_with_the_file_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    name = call.rpartition(" ")[2]
    module = fcntl if name == "flock" else os
    real = getattr(module, name)
    left = iter([real] if " " in call else [])

    def refused(descriptor: int, *arguments: int) -> None:
        if (work := next(left, None)) is None:
            raise OSError(errno.EIO, "Input/output error")
        work(descriptor, *arguments)

    monkeypatch.setattr(module, name, refused)
    with pytest.raises(OSError, match="Input/output error") as raised:
        write_atomically(tmp_path / "out", "text")
    assert raised.value.filename.startswith(f"{tmp_path}/out")
    assert list(tmp_path.iterdir()) == []
    assert open_below(tmp_path) == []


def test_a_lock_that_fails_is_told_though_the_file_has_gone_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_descriptor: int, _operation: int) -> None:
        for path in tmp_path.iterdir():
            path.unlink()
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"):
        write_atomically(tmp_path / "out", "text")


def test_a_directory_that_can_not_be_listed_can_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listdir(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", f"{path}")

    monkeypatch.setattr(os, "listdir", listdir)
    write_atomically(tmp_path / "out", "text")
    assert (tmp_path / "out").read_text() == "text"


def test_a_dead_run_s_file_that_another_run_removes_meanwhile_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [*real(path), PART])
    write_atomically(tmp_path / "out", "text")
    assert (tmp_path / "out").read_text() == "text"


# --- what an interrupted run has left, and is gone on with


@pytest.mark.parametrize(
    ("mode", "goes_on"), [(0o755, True), (0o700, True), (0o775, False), (0o757, False), (0o777, False)]
)
def test_only_where_nobody_else_may_write_what_lies_there_is_taken_for_ours(
    tmp_path: Path, mode: int, *, goes_on: bool
) -> None:
    """He could have put it there, and hold it open."""
    place = tmp_path / "place"
    put(place / PART, b"half")
    place.chmod(mode)
    with kept_part_file(place / "out") as kept:
        assert kept.was_there is goes_on
        assert kept.part.opened.read_bytes() == (b"half" if goes_on else b"")


def test_what_is_left_stays_where_two_runs_give_way_to_each_other(tmp_path: Path) -> None:
    """Both have come at the same moment: one has taken it, and sees the other one's new file."""
    left = put(tmp_path / PART, b"half")
    other = put(tmp_path / "out.regwrap-11111111.part", b"")
    with other.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another regwrap is writing"), kept_part_file(tmp_path / "out"):
            pytest.fail("two write one file")
    assert left.read_bytes() == b"half"


def test_a_link_and_a_directory_of_that_name_are_no_file_of_an_earlier_run(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", b"precious")
    (tmp_path / PART).symlink_to(victim)
    (tmp_path / "out.regwrap-11111111.part").mkdir()
    with kept_part_file(tmp_path / "out") as kept:
        assert not kept.was_there
        kept.part.opened.write_bytes(b"ours")
    assert victim.read_bytes() == b"precious"
    assert open_below(tmp_path) == []


def test_a_run_without_a_standard_input_goes_on_with_what_is_there(tmp_path: Path) -> None:
    """The first file that it opens has the number 0."""
    left, saved = put(tmp_path / PART, b"half"), os.dup(0)
    os.close(0)
    try:
        with kept_part_file(tmp_path / "out") as kept:
            assert (kept.part.path, kept.was_there) == (left, True)
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_what_is_given_back_takes_no_room_and_the_rest_stays(tmp_path: Path) -> None:
    """A release goes through a file as large as itself, and the disk need not have room for all of it."""
    size = 1 << 20
    with put(tmp_path / "file", b"x" * size).open("r+b") as file:
        before = os.fstat(file.fileno()).st_blocks
        give_back(file.fileno(), 0, size - 4096)
        assert os.fstat(file.fileno()).st_blocks < before // 8
        assert os.fstat(file.fileno()).st_size == size
        assert os.pread(file.fileno(), 8192, size - 8192) == bytes(4096) + b"x" * 4096
