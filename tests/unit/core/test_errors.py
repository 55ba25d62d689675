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
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ImagesFailedError, 1), (UsageError, 2), (RegwrapError, 3), (ToolError, 3), (HostDownError, 3),
     (IntegrityError, 4), (BrokenBlobError, 4)],
)  # fmt: skip
def test_scripts_can_tell_what_went_wrong(kind: type[RegwrapError], code: int) -> None:
    assert kind("x").exit_code == code
    assert (ExitCode.DONE, ExitCode.BUG) == (0, 70)
