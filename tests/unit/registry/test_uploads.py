"""Blobs sent to a registry: in one piece, or on from where they broke, if the registry has kept that."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from regwrap.core.errors import IntegrityError, ToolError
from regwrap.core.location import Registry
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Response
from regwrap.registry.probe import Probe
from regwrap.registry.uploads import Parcel
from tests.answering import Answer, Answering, Asked, answering, script

DATA = bytes(range(35))
DIGEST = Digest.of(DATA)


def probe_of(host: str) -> Probe:
    return Probe(registry=Registry(host=host, tls_verify=False, plain_http=True), timeout=5, connections=2)


def sending(probe: Probe, taken: list[int] | None = None, *, unseen: bool = False) -> Callable[[], Response]:
    """Sends DATA in pieces of ten bytes, once it goes by pieces; `taken` gets how many bytes were asked for."""

    def pieces(start: int, end: int) -> tuple[bytes, ...]:
        if taken is not None:
            taken.append(end - start)
        return (DATA[start:end],)

    probe.uploads.piece = 10
    parcel = Parcel(repository="a/b", digest=DIGEST, size=len(DATA), pieces=pieces, unseen=unseen)
    return lambda: probe.uploads.send(parcel)


@dataclass
class Keeping:
    """A registry that keeps what comes of an upload, and says so. Of the body of the request with number `breaks` only
    `kept` bytes come, and what stands before it says 502. `says` may answer in its place. `silent` are headers that it
    does not send, `taken` the status for a piece, of which it takes no more than `most` bytes. A piece goes where the
    latest Location was."""

    breaks: int = 0
    kept: int = 0
    silent: tuple[str, ...] = ()
    taken: int = 202
    most: int = 10
    says: Callable[[Asked], Answer | None] = lambda _asked: None
    blob: bytes | None = None
    sessions: dict[str, bytes] = field(default_factory=dict)
    latest: dict[str, str] = field(default_factory=dict)
    bodies: int = 0

    def __call__(self, asked: Asked) -> Answer:
        answer = self.says(asked)
        return self._served(asked) if answer is None else answer

    def _served(self, asked: Asked) -> Answer:
        method, _, target = asked.line.partition(" ")
        name = urlsplit(target).path.rpartition("/")[2]
        if method == "POST":
            self.sessions[name := f"u{len(self.latest)}"] = b""
            return self._at(name, 202)
        if name not in self.sessions:
            return Answer(404)
        if method == "GET":
            return self._at(name, 204)
        if method == "DELETE":
            del self.sessions[name]
            return Answer(204)
        first = re.match(r"\d+", asked.headers.get("content-range", "0"))
        is_next = first and int(first[0]) == len(self.sessions[name]) and target == self.latest[name]
        if method == "PATCH" and not is_next:
            return Answer(416)
        return self._sent(method, name, asked)

    def _sent(self, method: str, name: str, asked: Asked) -> Answer:
        self.bodies += bool(asked.body)
        is_broken = bool(asked.body) and self.bodies == self.breaks
        most = self.kept if is_broken else self.most if method == "PATCH" else len(asked.body)
        self.sessions[name] += asked.body[:most]
        if is_broken:
            return Answer(502)
        return self._at(name, self.taken) if method == "PATCH" else self._finished(name, asked)

    def _at(self, name: str, status: int) -> Answer:
        """Each answer names another address for what comes next."""
        count = len(self.sessions[name])
        headers = {"Location": f"/v2/a/b/blobs/uploads/{name}?at={count}", "Range": f"0-{max(0, count - 1)}"}
        silent = self.silent if name in self.latest else ()
        if "Location" not in silent:
            self.latest[name] = headers["Location"]
        return Answer(status, {header: value for header, value in headers.items() if header not in silent})

    def _finished(self, name: str, asked: Asked) -> Answer:
        data = self.sessions.pop(name)
        if parse_qs(urlsplit(asked.line).query)["digest"] != [f"{Digest.of(data)}"]:
            return Answer(400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blob = data
        return Answer(201)


def told(server: Answering) -> list[str]:
    """What was asked, without addresses, and which bytes of the whole came with it."""
    return [
        f"{asked.line.partition(' ')[0]} {asked.headers.get('content-range', '')}".strip() for asked in server.asked
    ]


# --- what nobody has asked for


@pytest.mark.parametrize("status", [201, 202, 400, 404, 405, 500])
def test_what_nobody_has_asked_for_is_asked_with_the_upload(status: int) -> None:
    """201: it is there. 202: the upload has begun. Else the registry knows no such request, and gets the plain one."""
    registry, taken, own = Keeping(), list[int](), f"mount=sha256%3A{DIGEST.hex}&from=a%2Fb"
    registry.says = lambda asked: Answer(status) if status != 202 and asked.line.endswith(own) else None
    with answering(registry) as server:
        assert sending(probe_of(server.host), taken, unseen=True)().status == 201
        first, *rest = server.lines
    assert first == f"POST /v2/a/b/blobs/uploads/?{own}"
    assert [line.split("?")[0] for line in rest if line.startswith("POST")] == (
        [] if status in {201, 202} else ["POST /v2/a/b/blobs/uploads/"]
    )
    assert (registry.blob, taken) == ((None, []) if status == 201 else (DATA, [len(DATA)]))


# --- what broke


@pytest.mark.parametrize("kept", range(2, 36, 3))
def test_what_broke_goes_on_where_the_registry_says(kept: int) -> None:
    registry, taken = Keeping(breaks=1, kept=kept), list[int]()
    with answering(registry) as server:
        send = sending(probe_of(server.host), taken)
        with pytest.raises(ToolError, match="answered 502") as raised:
            send()
        assert raised.value.transient
        assert send().status == 201
    assert registry.blob == DATA
    assert sum(taken) == 2 * len(DATA) - kept
    assert [line for line in told(server) if not line.startswith("PATCH")] == ["POST", "PUT", "GET", "PUT"]


@pytest.mark.parametrize("breaks", range(2, 6))
def test_each_piece_may_break_again(breaks: int) -> None:
    """The first try is one piece, of which nothing is kept; then it goes by pieces of ten bytes."""
    registry, taken = Keeping(breaks=1), list[int]()
    with answering(registry) as server:
        send = sending(probe_of(server.host), taken)
        with pytest.raises(ToolError):
            send()
        registry.breaks, registry.kept = breaks, 5
        with pytest.raises(ToolError):
            send()
        assert send().status == 201
    assert registry.blob == DATA
    again = {5: 0}.get(breaks, 5)  # of the last piece all had come
    assert sum(taken) == 2 * len(DATA) + again


def test_an_upload_that_the_registry_has_forgotten_begins_anew() -> None:
    """As one does that was started again with another secret: the address of before is nothing to it."""
    registry = Keeping(breaks=1, kept=20)
    with answering(registry) as server:
        send = sending(probe_of(server.host))
        with pytest.raises(ToolError):
            send()
        registry.sessions.clear()
        assert send().status == 201
        pieces = ["PATCH 0-9", "PATCH 10-19", "PATCH 20-29", "PATCH 30-34"]
        assert told(server) == ["POST", "PUT", "GET", "POST", *pieces, "PUT"]
    assert registry.blob == DATA


@pytest.mark.parametrize("status", [404, 405, 411, 416, 200, 201])
def test_a_registry_that_takes_no_pieces_gets_it_in_one(status: int) -> None:
    registry = Keeping(breaks=1, says=lambda asked: Answer(status) if asked.line.startswith("PATCH") else None)
    with answering(registry) as server:
        send = sending(probe_of(server.host))
        with pytest.raises(ToolError):
            send()
        assert send().status == 201
        assert told(server)[-2:] == ["POST", "PUT"]
    assert registry.blob == DATA


@pytest.mark.parametrize(
    "state",
    [
        Answer(405),
        Answer(200, {"Range": "0-9"}),
        Answer(204),
        Answer(204, {"Range": "0-99"}),
        Answer(204, {"Range": "7-9"}),
        Answer(204, {"Range": "0-x"}),
        Answer(401),
    ],
)
def test_a_state_that_cannot_be_right_is_not_believed(state: Answer) -> None:
    """The upload is given up, so that the registry does not keep it for a week, and another one begins."""
    registry = Keeping(breaks=1, kept=12, says=lambda asked: state if asked.line.startswith("GET") else None)
    assert in_the_second_try(registry)[2:5] == ["GET", "DELETE", "POST"]
    assert registry.sessions == {}


def test_an_upload_that_is_said_to_be_elsewhere_now_begins_anew() -> None:
    led = Answer(204, {"Range": "0-9", "Location": "http://other.example/v2/u"})
    registry = Keeping(breaks=1, kept=12, says=lambda asked: led if asked.line.startswith("GET") else None)
    in_the_second_try(registry)


def in_the_second_try(registry: Keeping) -> list[str]:
    """Of the first try some comes; the blob is there after the second one."""
    with answering(registry) as server:
        send = sending(probe_of(server.host))
        with pytest.raises(ToolError):
            send()
        assert send().status == 201
        assert registry.blob == DATA
        return told(server)


@pytest.mark.parametrize(
    ("registry", "pieces"),
    [
        (Keeping(silent=("Range",)), ["0-9", "10-19", "20-29", "30-34"]),
        (Keeping(silent=("Location",)), ["0-9", "10-19", "20-29", "30-34"]),
        (Keeping(taken=204), ["0-9", "10-19", "20-29", "30-34"]),
        (Keeping(most=8), ["0-9", "8-17", "16-25", "24-33", "32-34"]),
    ],
    ids=["no range", "no location", "204", "less than a piece"],
)
def test_pieces_follow_each_other_as_the_registry_takes_them(registry: Keeping, pieces: list[str]) -> None:
    registry.breaks = 1
    asked = in_the_second_try(registry)
    assert asked[-len(pieces) - 1 :] == [*(f"PATCH {piece}" for piece in pieces), "PUT"]
    assert registry.sessions == {}


def test_a_piece_is_as_large_as_stores_want_it_and_small_enough_to_be_sent_twice() -> None:
    """S3 refuses less than 5 MiB in each part but the last; and a blob of a gigabyte is no million of requests."""
    assert 5 * 2**20 <= probe_of("r.example").uploads.piece <= 64 * 2**20


def test_a_registry_that_takes_nothing_of_a_piece_gets_all_in_one() -> None:
    """Else the same piece would be sent without an end."""
    stuck = Answer(202, {"Range": "0-9"})
    registry = Keeping(
        breaks=1, says=lambda asked: stuck if "10-19" in asked.headers.get("content-range", "") else None
    )
    assert in_the_second_try(registry)[-5:] == ["PATCH 0-9", "PATCH 10-19", "DELETE", "POST", "PUT"]


BROKEN = Answer(200, {"Content-Length": "9"}, b"x", cut=1)


def test_a_registry_that_hangs_up_when_it_is_to_forget_an_upload_fails_nothing() -> None:
    """What it said of the upload itself counts; and a run that is over ends well."""
    registry = Keeping(says=lambda asked: {"PUT": Answer(413), "DELETE": BROKEN}.get(asked.line.partition(" ")[0]))
    with answering(registry) as server:
        assert sending(probe_of(server.host))().status == 413
        assert [line.partition(" ")[0] for line in server.lines] == ["POST", "PUT", "DELETE"]
    registry = Keeping(breaks=1, says=lambda asked: BROKEN if asked.line.startswith("DELETE") else None)
    with answering(registry) as server:
        probe = probe_of(server.host)
        with pytest.raises(ToolError, match="502"):
            sending(probe)()
        probe.close()
        assert server.lines[-1].startswith("DELETE ")


def test_a_state_that_lies_is_found_out_by_the_registrys_own_hash() -> None:
    """It says that it has more than it got: what is put together is not the blob, and all of it is sent once more."""
    lie = Answer(204, {"Range": "0-19"})
    in_the_second_try(Keeping(breaks=1, kept=12, says=lambda asked: lie if asked.line.startswith("GET") else None))


def test_a_registry_that_is_away_when_it_is_asked_how_much_it_has_is_asked_later() -> None:
    registry = Keeping(breaks=1, kept=12)
    with answering(registry) as server:
        send = sending(probe_of(server.host))
        with pytest.raises(ToolError):
            send()
        registry.says = lambda _asked: Answer(503)
        with pytest.raises(ToolError, match="503"):
            send()
        assert told(server)[-2:] == ["PUT", "GET"]
        registry.says = lambda _asked: None
        assert send().status == 201
        assert told(server)[-5:] == ["GET", "PATCH 12-21", "PATCH 22-31", "PATCH 32-34", "PUT"]
    assert registry.blob == DATA


def test_what_nobody_goes_on_with_is_cancelled_in_the_end() -> None:
    registry = Keeping(breaks=1, kept=12)
    with answering(registry) as server:
        probe = probe_of(server.host)
        with pytest.raises(ToolError):
            sending(probe)()
        assert list(registry.sessions) == ["u0"]
        probe.close()
        assert server.lines[-1] == "DELETE /v2/a/b/blobs/uploads/u0?at=0"
    assert registry.sessions == {}


def test_an_upload_whose_source_is_damaged_is_cancelled() -> None:
    def pieces(_start: int, _end: int) -> tuple[bytes, ...]:
        raise IntegrityError("the file was truncated while it was read")

    with answering(registry := Keeping()) as server:
        probe = probe_of(server.host)
        with pytest.raises(IntegrityError):
            probe.uploads.send(Parcel(repository="a/b", digest=DIGEST, size=4, pieces=pieces))
        assert server.lines[0] == "POST /v2/a/b/blobs/uploads/", "what is known to be absent is not asked for"
        assert server.lines[-1].startswith("DELETE ")
    assert registry.sessions == {}


def test_a_refusal_is_told_and_the_upload_cancelled() -> None:
    registry = Keeping(says=lambda asked: Answer(413) if asked.line.startswith("PUT") else None)
    with answering(registry) as server:
        assert sending(probe_of(server.host))().status == 413
    assert registry.sessions == {}


# --- where it goes


class Led:
    """An upload begins at `location`."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __call__(self, asked: Asked) -> Answer:
        if asked.line.startswith("POST"):
            return Answer(202, {"Location": self.location.replace("HOST", asked.headers["host"])})
        return Answer(201, body=b"said") if asked.line.startswith("PUT") else Answer(204)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2/a/b/blobs/uploads/1?state=x", "/v2/a/b/blobs/uploads/1?state=x&digest="),
        ("1", "/v2/a/b/blobs/uploads/1?digest="),
        ("http://HOST/v2/u", "/v2/u?digest="),
        ("https://HOST/v2/u", "/v2/u?digest="),  # as behind a proxy that ends TLS, or begins it
    ],
)
def test_a_blob_is_sent_in_one_piece_to_where_the_registry_says(location: str, target: str) -> None:
    with answering(Led(location)) as server:
        answer = sending(probe_of(server.host))()
        assert (answer.status, answer.body) == (201, b"said")
        assert server.asked[1].line == f"PUT {target}sha256%3A{DIGEST.hex}"
        assert server.asked[1].body == DATA


def test_a_blob_store_gets_the_blob_without_our_credentials(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    with answering(lambda _asked: Answer(201)) as store, answering(Led(f"http://{store.host}/s?x=1")) as server:
        path.write_text(json.dumps({"auths": {server.host: {"auth": "eDp5"}}}))
        registry = Registry(host=server.host, tls_verify=False, plain_http=True, authfile=path)
        probe = Probe(registry=registry, timeout=5, connections=1)
        assert probe.call("GET", "/api").status == 204
        assert server.asked[0].authorization == "Basic eDp5"
        assert sending(probe)().status == 201
        assert [(a.line, a.body, a.authorization) for a in store.asked] == [
            (f"PUT /s?x=1&digest=sha256%3A{DIGEST.hex}", DATA, "")
        ]


def test_a_blob_store_that_breaks_is_asked_anew_by_the_registry() -> None:
    answers = script(Answer(503), Answer(201))
    with answering(answers) as store, answering(Led(f"http://{store.host}/s")) as server:
        send = sending(probe_of(server.host))
        assert [send().status for _ in range(2)] == [503, 201]
        assert server.lines == ["POST /v2/a/b/blobs/uploads/"] * 2


def test_an_upload_that_is_not_begun_is_the_answer() -> None:
    with answering(script(Answer(405, body=b"no"), Answer(202))) as server:
        send = sending(probe_of(server.host))
        assert [send().status for _ in range(2)] == [405, 202]
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [401, 403])
def test_another_name_of_the_registry_that_wants_the_login_is_left_to_skopeo(status: int) -> None:
    with answering(lambda _asked: Answer(status)) as store, answering(Led(f"http://{store.host}/s")) as server:
        message = f"{store.host} answered {status} to the upload that POST /v2/a/b/blobs/uploads/ led to"
        with pytest.raises(UnsureError, match=message):
            sending(probe_of(server.host))()
