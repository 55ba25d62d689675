"""What is written to a real terminal, of its width, and what to one that is dumb, a CI's, or refuses colours."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest

from tests.faultserver import Fault, faulty_proxy
from tests.release.conftest import Scene

pytestmark = pytest.mark.tools
_COLUMNS: Final = 40
_SLOW: Final = Fault(
    kind="slow", pattern="GET /v2/app/blobs", seconds=0.8
)  # the live line is drawn five times a second


@pytest.fixture
def slow_host(scene: Scene) -> Iterator[str]:
    with faulty_proxy(scene.host, [_SLOW]) as proxy:
        yield proxy.host


def seen(scene: Scene, host: str, **environment: str) -> str:
    """What a sync with one image that fails writes to a terminal of 40 columns."""
    (scene.directory / "images.list").write_text("app:v1\nno/such:v1\n")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _COLUMNS, 0, 0))
    process = subprocess.Popen(
        scene.cli.command("sync", "images.list", "--source", host),
        cwd=scene.directory,
        env={**scene.cli.environment, "TERM": "xterm", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    with suppress(OSError):  # EIO is a terminal's end
        while data := os.read(ours, 65536):
            text += data
    os.close(ours)
    assert process.wait(60) == 1
    return text.decode()


def test_a_terminal_gets_a_live_line_within_its_width_and_red_failures(scene: Scene, slow_host: str) -> None:
    text = seen(scene, slow_host)
    drawn = re.findall(r"sync: [^\r\n\x1b]*", text)
    assert drawn
    assert all(len(line) < _COLUMNS for line in drawn)
    assert "\r\x1b[K" in text
    assert "\x1b[31mno/such:v1: FAILED" in text


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=["dumb", "ci"])
def test_a_dumb_terminal_and_a_ci_get_plain_lines(scene: Scene, slow_host: str, environment: dict[str, str]) -> None:
    text = seen(scene, slow_host, **environment)
    assert "no/such:v1: FAILED" in text
    assert "\x1b" not in text
    assert "\r" not in text.replace("\r\n", "")


def test_who_wants_no_colours_gets_the_live_line_without(scene: Scene, slow_host: str) -> None:
    text = seen(scene, slow_host, NO_COLOR="1")
    assert "\r\x1b[K" in text
    assert "\x1b[3" not in text


def test_usage_errors_have_no_colours_in_a_pipe_nor_frames_anywhere(scene: Scene) -> None:
    done = scene.cli("sync", "--no-such-option", env={"FORCE_COLOR": "", "TERM": "xterm"})
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "─" not in done.stderr
