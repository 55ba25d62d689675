"""What a credential helper says, and what is made of it."""

import json
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.tools.authfile import Login
from regwrap.tools.helpers import Helpers
from tests.builders import put
from tests.fakes import Answer, Scripted

LOGIN = Login(entry="r.example", helper="keys", server="r.example")


def known(scripted: Scripted, directory: Path, said: bytes) -> Login | None:
    put(directory / "bin/docker-credential-keys", b"").chmod(0o755)
    scripted.launcher.answers.append(Answer(when=("sh",), stdout=said))
    environment = (("PATH", f"{directory / 'bin'}"),)
    return Helpers(runner=scripted.runner, environment=environment, place=directory / "own", timeout=5).known(LOGIN)


def test_a_user_and_a_secret_are_a_login(scripted: Scripted, tmp_path: Path) -> None:
    login = known(scripted, tmp_path, json.dumps({"Username": "x", "Secret": "y"}).encode())
    assert login is not None
    assert (login.basic, login.token) == ("eDp5", "")


@pytest.mark.parametrize(
    "said",
    [
        b"", b"[]", b"null", b"{}", b"[" * 100_000, b"\xff{}", b'{"Username": "x"}',
        b'{"Username": "x", "Secret": null}', b'{"Username": 5, "Secret": "hush"}',
        b'{"Username": ["x"], "Secret": "hush"}', b'{"Username": "x", "Secret": "hush\\ud800"}',
    ],
)  # fmt: skip
def test_what_is_no_login_is_said_without_a_word_of_it(scripted: Scripted, tmp_path: Path, said: bytes) -> None:
    with pytest.raises(ToolError, match="docker-credential-keys gave no login") as raised:
        known(scripted, tmp_path, said)
    assert "hush" not in f"{raised.value} {raised.value.detail} {raised.value.__cause__}"
