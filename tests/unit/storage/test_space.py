"""Whether there is room: what is asked for counts, and nothing else."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from regwrap.core.errors import ToolError
from regwrap.storage.space import Space, need_space


def test_what_needs_no_file_has_room_where_no_file_can_be_made() -> None:
    full = Space(bytes=10, files=0)
    assert full.has(10)
    assert not full.has(11)
    assert not full.has(0, 1)


def test_bytes_and_files_that_have_no_room_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = SimpleNamespace(f_blocks=9, f_bavail=2, f_frsize=512, f_files=9, f_favail=0)
    monkeypatch.setattr(os, "statvfs", lambda _path: status)
    need_space(tmp_path, 1024)
    with pytest.raises(ToolError, match="1,025 bytes are needed, 1,024 are free"):
        need_space(tmp_path, 1025)
    with pytest.raises(ToolError, match="1 are needed, 0 are free"):
        need_space(tmp_path, 0, files=1)
    status.f_bavail, status.f_favail = 0, 1
    need_space(tmp_path, 0, files=1)
