"""Files that appear whole or not at all, in a directory that somebody else may write to."""

import fcntl
import os
import stat
from pathlib import Path

import pytest

from regwrap.bundle.aside import kept_part_file, part_file, write_whole
from regwrap.core.errors import UsageError
from tests.builders import put
from tests.interruptions import interrupted_at


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_stands_beside_a_bundle_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "r.tar.sha256", "text\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "r.tar.sha256").stat().st_mode) == 0o644


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = put(tmp_path / "victim", b"precious")
    for name in ("r.tar.sha256", "r.tar.sha256.part", "r.tar.sha256.regwrap-01234567.part"):
        (tmp_path / name).symlink_to(victim)
    write_whole(tmp_path / "r.tar.sha256", "text\n")
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
    write_whole(tmp_path / "out", "text")
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
        write_whole(tmp_path / "out", "text")
    assert (tmp_path / "out").read_text() == "text"


@pytest.mark.usefixtures("handled_signals")
def test_a_signal_at_any_moment_leaves_the_old_file_or_the_new_one_and_nothing_beside_it(tmp_path: Path) -> None:
    output = put(tmp_path / "out", b"old")
    number, found = 1, set()
    while interrupted_at(number, lambda: write_whole(output, b"new")):
        assert list(tmp_path.iterdir()) == [output], f"moment {number}"
        found.add(output.read_bytes())
        output.write_bytes(b"old")
        number += 1
    assert found == {b"old", b"new"}


@pytest.mark.usefixtures("handled_signals")
@pytest.mark.parametrize("left", [0, 2])
def test_nor_does_it_leave_what_an_earlier_run_left_and_nobody_wants(tmp_path: Path, left: int) -> None:
    def work() -> None:
        with kept_part_file(tmp_path / "out") as kept:
            kept.part.path.rename(tmp_path / "out")

    number, is_new = 1, False
    while True:
        for name in "ab"[:left]:
            put(tmp_path / f"out.regwrap-0123456{name}.part", b"")
        if not interrupted_at(number, work):
            break
        is_new = is_new or (tmp_path / "out").exists()
        rest = [path.name for path in tmp_path.iterdir() if path.name != "out"]
        assert len(rest) in {0, left}, f"moment {number}: {rest}"  # not looked at yet, or taken over
        for path in tmp_path.iterdir():
            path.unlink()
        number += 1
    assert is_new
