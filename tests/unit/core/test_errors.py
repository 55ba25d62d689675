"""What a script sees of an error: its exit code, as README and docs list it."""

import pytest

from regwrap.core.errors import (
    BrokenBlobError,
    ExitCode,
    HostDownError,
    ImagesFailedError,
    IntegrityError,
    RegwrapError,
    ToolError,
    UsageError,
    error_text,
    usage_error,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ImagesFailedError, 1), (UsageError, 2), (RegwrapError, 3), (ToolError, 3), (HostDownError, 3),
     (IntegrityError, 4), (BrokenBlobError, 4)],
)  # fmt: skip
def test_scripts_can_tell_what_went_wrong(kind: type[RegwrapError], code: int) -> None:
    assert kind("x").exit_code == code
    assert (ExitCode.DONE, ExitCode.BUG) == (0, 70)


def test_of_several_problems_the_number_is_told_and_each_has_its_line() -> None:
    assert usage_error("list", ["one"], hint="h").message == "one"
    several = usage_error("list", ["one", "two"], hint="do this")
    assert error_text(several) == "regwrap: list: 2 problems\n  one\n  two\n  -> do this"
    assert usage_error("list", ["one", "and more"], count=50).message == "list: 50 problems"


@pytest.mark.parametrize(
    ("detail", "lines"),
    [("", ["regwrap: what"]), (" why\n", ["regwrap: what: why"]), ("a\nb\n", ["regwrap: what", "  a", "  b"])],
)
def test_what_a_tool_said_stands_behind_the_message_or_below_it(detail: str, lines: list[str]) -> None:
    advice = "  -> rerun; finished work is not repeated. regwrap doctor shows what this machine needs"
    assert error_text(ToolError("what", detail=detail)).splitlines() == [*lines, advice]
