"""What ends a run decides its exit code."""

import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from regwrap.cli.program import exit_code_of
from regwrap.core.errors import ExitCode, Interrupted, UsageError


def test_an_error_that_a_signal_has_caused_counts_as_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    """As CPython does it to a lock's __exit__: the handler's exception is the context of another one."""

    def program() -> None:
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            raise RuntimeError("release unlocked lock")

    assert exit_code_of(program) == 143
    assert capsys.readouterr().err.startswith("regwrap: interrupted (SIGTERM). ")


def test_other_errors_keep_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def wrong() -> None:
        raise UsageError("no such list")

    def bug() -> None:
        raise RuntimeError("a bug")

    assert [exit_code_of(wrong), exit_code_of(bug), exit_code_of(lambda: None)] == [2, 70, 0]
    assert "this is a bug in regwrap" in capsys.readouterr().err


def test_a_last_word_that_can_t_be_written_does_not_change_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong() -> None:
        raise UsageError("no such list")

    with suppress(OSError), Path("/dev/full").open("w", encoding="utf-8") as full:  # its close fails too
        monkeypatch.setattr(sys, "stderr", full)
        assert exit_code_of(wrong) == 2


def test_a_part_of_the_program_that_can_t_be_loaded_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def unreadable() -> None:
        raise ImportError("_ssl.so: cannot read file data: Input/output error")

    assert exit_code_of(unreadable) == 3
    said = capsys.readouterr().err
    assert "Input/output error" in said
    assert "install regwrap again" in said
    assert "bug" not in said


def test_scripts_rely_on_the_numbers() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "DONE": 0, "IMAGES_FAILED": 1, "USAGE": 2, "TOOL": 3, "INTEGRITY": 4, "BUG": 70,
    }  # fmt: skip
