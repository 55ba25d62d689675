"""What a registry says when it refuses, as a reason for the user."""

import pytest

from regwrap.registry.transport import reason_of


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b"refused\n on demand ", "refused on demand"),
        (b'{"errors":[{"detail":"write /x: no space left on device"}]}', "no space left on device"),
        (b'{"detail":{"Op":"mkdir","Path":"/x","Err":28}}', "(No space left on device)"),
        (b'{"detail":{"Op":"write","Err":122}}', "(Disk quota exceeded)"),
        (b"\xff" * 2000, "\ufffd" * 500),
    ],
)
def test_the_reason_of_a_refusal(body: bytes, reason: str) -> None:
    assert reason_of(body).endswith(reason) or reason in reason_of(body)
    assert len(reason_of(body)) < 600
