"""The real curl against servers that misbehave: what is taken, what is told, and what goes to whom."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Timeouts
from regwrap.tools.curl import Curl, Download, DownloadOutcome, Route
from regwrap.tools.launcher import ShLauncher
from regwrap.tools.runner import Runner, Tool

pytestmark = pytest.mark.tools(Tool.CURL)

DATA = bytes(range(256)) * 4000
PIECE = b"y" * 100_000


class _Handler(BaseHTTPRequestHandler):
    """Each path is a way to answer a GET."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait 40 ms for the ack of its header
    seen: ClassVar[list[tuple[str, str, str]]] = []
    other: ClassVar[str] = ""
    ending: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        said, port = self.headers, self.headers.get("Host", "").rpartition(":")[2]
        self.seen.append((f"{port}{self.path}", said.get("Authorization", ""), said.get("User-Agent", "")))
        way = self.path.strip("/").partition("-")[0]
        {"more": self._more, "led": self._led, "loop": self._loop, "file": self._file, "stall": self._stall}.get(
            way, self._plain
        )()

    def _plain(self) -> None:
        start, wanted = 0, self.headers.get("Range", "")
        way = self.path.strip("/").partition("-")[0]
        if way == "refused":
            self.send_response(429)
            self.send_header("Retry-After", "7")
            self._body(b"no")
            return
        if wanted and way == "range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        else:
            self.send_response(200)
        self._body(DATA[start:], cut=1000 if way == "cut" else None)

    def _body(self, data: bytes, cut: int | None = None) -> None:
        self.send_header("Content-Length", f"{len(data)}")
        self.end_headers()
        self.wfile.write(data[:cut])
        self.close_connection = self.close_connection or cut is not None

    def _more(self) -> None:
        """For ever, and without a length."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(f"{len(PIECE):x}\r\n".encode() + PIECE + b"\r\n")

    def _stall(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", f"{len(DATA)}")
        self.end_headers()
        self.wfile.write(DATA[:1000])
        self.wfile.flush()
        self.ending.wait(30)
        self.close_connection = True

    def _redirect(self, where: str) -> None:
        self.send_response(307)
        self.send_header("Location", where)
        self._body(b"")

    def _led(self) -> None:
        self._redirect(f"http://{self.other}/here")

    def _loop(self) -> None:
        self._redirect("/loop")

    def _file(self) -> None:
        self._redirect("file:///etc/passwd")

    def log_message(self, *_args: object) -> None:
        """Silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has had enough hangs up."""


@contextmanager
def served() -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Taken:
    """A receiver that writes to `directory`. `looked` is asked once bytes come."""

    directory: Path
    outcomes: dict[str, DownloadOutcome] = field(default_factory=dict)
    command_lines: list[str] = field(default_factory=list)

    def opened(self, key: str) -> int:
        self.command_lines += [_told(path) for path in Path("/proc").glob("[0-9]*")]
        return os.open(self.directory / key, os.O_WRONLY | os.O_CREAT, 0o600)

    def came(self, key: str, count: int) -> None:
        pass

    def is_wanted(self) -> bool:
        return True

    def ended(self, outcome: DownloadOutcome) -> None:
        self.outcomes[outcome.key] = outcome

    def data(self, key: str) -> bytes:
        return (self.directory / key).read_bytes()


def _told(process: Path) -> str:
    """What everybody on the machine sees of a process, and root of its environment."""
    try:
        return f"{(process / 'cmdline').read_bytes()!r} {(process / 'environ').read_bytes()!r}"
    except OSError:
        return ""


@pytest.fixture
def host() -> Iterator[str]:
    with served() as first, served() as second:
        _Handler.other = second
        _Handler.seen.clear()
        _Handler.ending.clear()
        yield first
        _Handler.ending.set()


@pytest.fixture
def taken(tmp_path: Path) -> Taken:
    (tmp_path / "files").mkdir()
    return Taken(tmp_path / "files")


def fetch(taken: Taken, host: str, *ways: str, offset: int = 0, authorization: str = "", search_path: str = "") -> None:
    scratch = taken.directory.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    runner = Runner(ShLauncher(), scratch=scratch, search_path=search_path or os.environ["PATH"])
    curl = Curl(runner=runner, scratch=scratch, timeouts=Timeouts(stall=2, request=2, copy=60))
    downloads = [
        Download(key=way, url=f"http://{host}/{way}", size=len(DATA), offset=offset, authorization=authorization)
        for way in ways
    ]
    curl.fetch(downloads, Route(), taken, parallel=4)
    assert list(scratch.iterdir()) == []


def test_many_come_and_each_tells_how_it_ended(host: str, taken: Taken) -> None:
    ways = [f"plain-{number}" for number in range(40)]
    fetch(taken, host, *ways, "refused", "cut")
    assert all(taken.data(way) == DATA and taken.outcomes[way].exit_code == 0 for way in ways)
    refused, cut = taken.outcomes["refused"], taken.outcomes["cut"]
    assert (refused.exit_code, refused.status, refused.retry_after) == (22, 429, "7")
    assert not (taken.directory / "refused").exists()
    assert (cut.exit_code, taken.data("cut")) == (18, DATA[:1000])


def test_of_an_answer_without_a_length_no_more_than_the_size_is_taken(host: str, taken: Taken) -> None:
    fetch(taken, host, "more", "plain")
    assert len(taken.data("more")) == len(DATA)
    assert taken.outcomes["more"].excess
    assert taken.outcomes["plain"].exit_code == 0


def test_what_stalls_is_ended_alone(host: str, taken: Taken) -> None:
    fetch(taken, host, "stall", "plain")
    assert (taken.outcomes["stall"].exit_code, taken.data("stall")) == (28, DATA[:1000])
    assert taken.data("plain") == DATA


@pytest.mark.parametrize(("way", "code"), [("range", 0), ("plain", 33)])
def test_it_goes_on_behind_what_is_there(host: str, taken: Taken, way: str, code: int) -> None:
    (taken.directory / way).write_bytes(DATA[:5000])
    fetch(taken, host, way, offset=5000)
    assert taken.outcomes[way].exit_code == code
    assert taken.data(way) == (DATA if code == 0 else DATA[:5000])


def test_credentials_go_to_the_registry_alone_and_nobody_sees_them(host: str, taken: Taken) -> None:
    fetch(taken, host, "led", "plain", authorization="Bearer secret-of-mine")
    assert taken.data("led") == DATA
    said = {where: authorization for where, authorization, _agent in _Handler.seen}
    first, second = host.partition(":")[2], _Handler.other.partition(":")[2]
    assert said == {
        f"{first}/led": "Bearer secret-of-mine", f"{first}/plain": "Bearer secret-of-mine", f"{second}/here": "",
    }  # fmt: skip
    assert taken.command_lines
    assert not any("secret-of-mine" in line for line in taken.command_lines if "pytest" not in line)


@pytest.mark.parametrize(("way", "code"), [("loop", 47), ("file", 1)])
def test_redirects_are_bounded_and_stay_http(host: str, taken: Taken, way: str, code: int) -> None:
    fetch(taken, host, way)
    assert taken.outcomes[way].exit_code == code
    assert not (taken.directory / way).exists()
    assert len(_Handler.seen) <= 6


def test_the_users_curlrc_does_not_count(
    host: str, taken: Taken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".curlrc").write_text('user-agent = "from the curlrc"\n')
    for name in ("HOME", "CURL_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, f"{tmp_path}")
    fetch(taken, host, "plain")
    assert [agent.partition("/")[0] for _where, _said, agent in _Handler.seen] == ["curl"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "curl ended before 1 of 1 download: exit code 0"),
        ("kill -9 $$", "curl ended before 1 of 1 download: signal 9"),
        ("echo why >&2; exit 2", "curl ended before 1 of 1 download: exit code 2: why"),
        ("exec sleep 100", "curl made no progress"),
    ],
)
def test_a_curl_that_does_nothing_is_no_success(host: str, taken: Taken, script: str, said: str) -> None:
    programs = taken.directory.parent / "programs"
    programs.mkdir()
    (programs / "curl").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "curl").chmod(0o755)
    with pytest.raises(ToolError) as raised:
        fetch(taken, host, "plain", search_path=f"{programs}:{os.environ['PATH']}")
    assert said in f"{raised.value}"
    assert raised.value.transient
    assert taken.outcomes == {}
