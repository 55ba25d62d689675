"""What curl is given and what is understood of it; a scripted one writes into the pipes."""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.location import Timeouts
from regwrap.tools.curl import Curl, Download, DownloadOutcome, Route, parse_outcome
from tests.fakes import Answer, Scripted

SECRET = 'Bearer s3cr"et\\'


@dataclass
class Heard:
    """A receiver that writes into files of `directory`; `flags` are added when one is opened."""

    directory: Path
    flags: int = 0
    outcomes: list[DownloadOutcome] = field(default_factory=list)
    wanted: bool = True

    def opened(self, key: str) -> int:
        return os.open(self.directory / key, os.O_WRONLY | os.O_CREAT | self.flags, 0o600)

    def came(self, key: str, count: int) -> None:
        assert key
        assert count

    def is_wanted(self) -> bool:
        return self.wanted

    def ended(self, outcome: DownloadOutcome) -> None:
        self.outcomes.append(outcome)


@dataclass
class Desk:
    scripted: Scripted
    heard: Heard
    curl: Curl

    def fetch(self, *downloads: Download, says: Callable[[bytes], bytes], route: Route | None = None) -> None:
        self.scripted.launcher.answers.append(Answer(when=("curl",), reads=says))
        self.curl.fetch(downloads, route or Route(), self.heard, parallel=3)

    @property
    def place(self) -> Path:
        (pipe,) = (line for line in self.stdin.splitlines() if line.startswith("output"))
        return Path(pipe.partition('"')[2].strip('"')).parent

    @property
    def stdin(self) -> str:
        return self.scripted.launcher.started[-1].stdin.decode()


@pytest.fixture
def desk(scripted: Scripted, tmp_path: Path) -> Desk:
    curl = Curl(runner=scripted.runner, scratch=scripted.runner.scratch, timeouts=Timeouts(stall=7, request=3, copy=90))
    return Desk(scripted, Heard(tmp_path), curl)


def outcome(key: str, exit_code: int = 0, *, retry_after: str = "", **values: object) -> bytes:
    document = {"filename_effective": f"/some/where/{key}", "exitcode": exit_code, "response_code": 200, **values}
    return f"{json.dumps(document)} {retry_after}\n".encode()


def one(key: str = "a", size: int = 4, *, offset: int = 0, authorization: str = "") -> Download:
    return Download(key=key, url=f"http://HOST/{key}", size=size, offset=offset, authorization=authorization)


def pipes(stdin: bytes) -> list[Path]:
    return [
        Path(line.partition('"')[2].strip('"')) for line in stdin.decode().splitlines() if line.startswith("output")
    ]


def writing(*data: bytes) -> Callable[[bytes], bytes]:
    """A curl that writes so into its pipes, one after the other, and says that all went well."""

    def says(stdin: bytes) -> bytes:
        for path, piece in zip(pipes(stdin), data, strict=True):
            path.write_bytes(piece)
        return b"".join(outcome(path.name) for path in pipes(stdin))

    return says


def dying(stdin: bytes) -> bytes:
    """A curl that writes a part and ends."""
    pipes(stdin)[0].write_bytes(b"da")
    return b""


def test_what_is_secret_and_where_it_goes_is_in_no_argument(desk: Desk) -> None:
    desk.fetch(one(authorization=SECRET), says=writing(b"data"))
    (started,) = desk.scripted.launcher.started
    assert started.argv[:2] == ("curl", "--disable")
    assert not any("HOST" in word or "s3cr" in word for word in started.argv)
    assert "HOST" not in f"{started.env}"
    assert 'header = "Authorization: Bearer s3cr\\"et\\\\"\n' in desk.stdin
    assert desk.scripted.log == [
        "curl --disable --parallel --parallel-immediate --parallel-max 3 --silent --show-error --config -"
    ]


def test_each_download_has_all_options_since_curl_forgets_them(desk: Desk) -> None:
    route = Route(environment=(("https_proxy", "http://p:1"),), options=(("insecure", ""), ("cert", "/c.pem")))
    desk.fetch(one("a"), one("b", offset=2), says=writing(b"data", b"ta"), route=route)
    first, second = desk.stdin.split("next\n")
    for section in (first, second):
        lines = section.splitlines()
        for line in (
            "fail", "globoff", "location", 'max-redirs = "5"', 'proto = "=http,https"', 'proto-redir = "=http,https"',
            'connect-timeout = "3"', 'speed-limit = "1"', 'speed-time = "7"', 'max-time = "90"', "insecure",
            'cert = "/c.pem"', 'write-out = "%{json} %header{retry-after}\\n"',
        ):  # fmt: skip
            assert line in lines
    assert "continue-at" not in first
    assert 'continue-at = "2"' in second
    assert desk.scripted.launcher.started[0].env["https_proxy"] == "http://p:1"
    assert (desk.heard.directory / "b").read_bytes() == b"\0\0ta"


def test_an_address_that_breaks_out_of_its_line_is_refused(desk: Desk) -> None:
    with pytest.raises(ToolError, match="cannot be given"):
        desk.fetch(Download(key="a", url="http://HOST/\nnext", size=1), says=writing(b""))
    assert desk.scripted.launcher.started == []


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["splice", "where there is no splice"])
def test_what_comes_lies_in_the_file_and_the_pipe_is_gone(desk: Desk, flags: int) -> None:
    desk.heard.flags = flags
    desk.fetch(one(size=9000), says=writing(b"abc" * 3000))
    assert (desk.heard.directory / "a").read_bytes() == b"abc" * 3000
    assert [(o.key, o.exit_code, o.excess) for o in desk.heard.outcomes] == [("a", 0, False)]
    assert not desk.place.exists()


def test_more_than_the_size_is_not_taken(desk: Desk) -> None:
    desk.fetch(one(size=4), says=writing(b"data and more"))
    assert (desk.heard.directory / "a").read_bytes() == b"data"
    assert [o.excess for o in desk.heard.outcomes] == [True]


def test_nothing_is_made_of_what_has_no_bytes(desk: Desk) -> None:
    desk.fetch(one(size=0), says=writing(b""))
    assert not (desk.heard.directory / "a").exists()
    assert [o.excess for o in desk.heard.outcomes] == [False]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (b"", "curl ended before 1 of 1 download"),
        (b"garbage\n", "curl said something that cannot be read: garbage"),
        (b"[1]\n", "curl said something that cannot be read"),
        (outcome("other"), "curl said something that cannot be read"),
        (b'{"exitcode": "none"}\n', "curl said something that cannot be read"),
    ],
)
def test_a_curl_that_lies_is_tried_again(desk: Desk, said: bytes, text: str) -> None:
    with pytest.raises(ToolError, match=text) as raised:
        desk.fetch(one(), says=lambda _stdin: said)
    assert raised.value.transient
    assert desk.heard.outcomes == []


def test_what_came_before_curl_died_is_kept(desk: Desk) -> None:
    with pytest.raises(ToolError, match="ended before"):
        desk.fetch(one(), says=dying)
    assert (desk.heard.directory / "a").read_bytes() == b"da"


def test_it_ends_when_the_run_does_or_nobody_needs_the_rest(desk: Desk) -> None:
    desk.heard.wanted = False
    with pytest.raises(ToolError, match="nobody needs"):
        desk.fetch(one(), says=dying)
    desk.heard.wanted = True
    desk.scripted.runner.stopping = threading.Event()

    def stop(_stdin: bytes) -> bytes:
        desk.scripted.runner.stopping.set()
        return b""

    with pytest.raises(ToolError, match="regwrap is stopping"):
        desk.fetch(one(), says=stop)


def test_all_that_an_outcome_tells_is_understood() -> None:
    line = outcome("key", 22, response_code=429, errormsg="no", url_effective="http://x", content_type="text/html")
    found = parse_outcome(line.replace(b" \n", b" 17\n").strip())
    assert found == DownloadOutcome(
        key="key", exit_code=22, status=429, message="no", url="http://x", media_type="text/html", retry_after="17"
    )
    assert parse_outcome(outcome("key", errormsg=None)).message == ""
