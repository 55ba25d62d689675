"""Files without an end, or with too much in them, are refused with a sentence."""

from pathlib import Path

import pytest

from regwrap.core.bounded import read_bounded
from regwrap.core.errors import UsageError
from regwrap.lists.lock import read_lock
from tests.builders import put


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    assert read_bounded(put(tmp_path / "file", b"12345"), 5) == b"12345"
    with pytest.raises(UsageError, match="file has more than 4 bytes"):
        read_bounded(tmp_path / "file", 4)


@pytest.mark.slow
def test_a_lock_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match=r"/dev/zero has more than [0-9,]+ bytes"):
        read_lock(Path("/dev/zero"))
