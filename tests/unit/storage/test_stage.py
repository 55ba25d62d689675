"""What is under way in a storage: gone when its run is over, also when a signal comes or the disk refuses."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from regwrap.core.errors import Interrupted
from regwrap.storage.stage import remove_stage
from regwrap.storage.tree import Tree
from tests.builders import put


def test_what_the_disk_does_not_remove_is_no_error_and_goes_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = put(tmp_path / "sync/half", b"x")

    def failing(name: str, **_options: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), name)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", failing)
        remove_stage(Tree(tmp_path), "sync")
    assert half.exists()
    remove_stage(Tree(tmp_path), "sync")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("handled_signals")
def test_a_signal_that_comes_while_it_goes_leaves_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "sync/half", b"x")
    real = shutil.rmtree

    def interrupted(name: str, *, dir_fd: int) -> None:
        signal.raise_signal(signal.SIGTERM)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(Interrupted):
        remove_stage(Tree(tmp_path), "sync")
    assert list(tmp_path.iterdir()) == []
