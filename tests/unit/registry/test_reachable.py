"""Whether a registry is there, how its names and connections fail, and what other programs have to say to it."""

import base64
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.core.errors import ToolError
from regwrap.core.manifest import Descriptor
from regwrap.core.model import Digest
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Request
from regwrap.registry.probe import Probe
from regwrap.registry.server_access import read_htpasswd
from tests.answering import Answer, Asked, answering
from tests.builders import put
from tests.unit.registry.test_client import APP, BASIC, Tokens, client_of, get, wants_basic

BLOB = Descriptor(media_type="", digest=Digest.of(b"x"), size=1)


@contextmanager
def silent_port() -> Iterator[str]:
    """A port whose queue of connections is full: who connects hears nothing at all."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (401, True), (404, True), (500, True), (502, False), (503, False), (504, False)]
)
def test_what_stands_before_a_registry_says_when_that_is_away(status: int, *, there: bool) -> None:
    with answering(lambda _asked: Answer(status)) as server:
        client = client_of(server.host)
        assert client.is_there() is there
        assert client.is_there() is there
        assert server.lines == ["GET /v2/"] * 2
        get(client)
        assert client.is_there() is there


def test_nobody_there_is_away_and_by_either_scheme_somebody_is_there() -> None:
    assert not client_of("127.0.0.1:1").is_there()
    with answering(lambda _asked: Answer()) as server:
        client = client_of(server.host)
        client.registry = replace(client.registry, plain_http=False)
        assert client.is_there()  # it hangs up on TLS, and answers without it


@pytest.mark.slow
def test_who_answers_too_much_is_there() -> None:
    with answering(lambda _asked: Answer(200, {}, b"x" * (5 * 1024 * 1024))) as server:
        assert client_of(server.host).is_there()
    with answering(lambda _asked: Answer(200, {"Content-Length": "9"}, b"x", cut=1)) as server:
        assert client_of(server.host).is_there()


@pytest.mark.parametrize("host", ["x" * 64 + ".example:5000", "a..example:5000"])
def test_a_name_that_is_none_is_no_outage(host: str) -> None:
    with pytest.raises(ToolError, match="could not be reached") as raised:
        get(client_of(host))
    assert not raised.value.outage
    assert raised.value.hint


@pytest.mark.exhaustive
def test_a_connection_that_does_not_come_about_ends_at_its_time() -> None:
    with silent_port() as host:
        client, started = client_of(host, timeout=0.3), time.monotonic()
        with pytest.raises(ToolError, match=f"{host} could not be reached.*: ") as raised:
            get(client)
        assert 0.2 < time.monotonic() - started < 30
        assert raised.value.outage
        assert "timed out" in f"{raised.value.detail}"


@pytest.mark.slow
def test_a_stop_ends_the_wait_for_a_connection() -> None:
    with silent_port() as host:
        client, started = client_of(host, timeout=60), time.monotonic()
        client.limiter.stopping.set()
        with pytest.raises(ToolError):
            client.elsewhere("GET", f"http://{host}/x")
        assert time.monotonic() - started < 30


# --- what other programs say


@pytest.mark.slow
def test_a_login_that_was_never_taken_is_tried_here_first(tmp_path: Path) -> None:
    """curl would try a wrong one for each of a hundred blobs, and the account would be locked."""
    with answering(wants_basic) as server:
        probe = Probe(registry=client_of(server.host, tmp_path).registry, timeout=5, connections=1)
        address = probe.downloads.address("a/b", BLOB)
        assert address.authorization == ""  # nobody asked yet
        get(probe.downloads.client)
        assert probe.downloads.address("a/b", BLOB).authorization == BASIC
        assert probe.downloads.address("a/b", BLOB).url == f"http://{server.host}/v2/a/b/blobs/{BLOB.digest}"


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_a_registry_that_fails_has_not_taken_a_login(tmp_path: Path, status: int) -> None:
    """Else a wrong password would go to many programs at once as soon as the registry is well again."""

    def behaviour(asked: Asked) -> Answer:
        if not asked.authorization:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="tests"'})
        return Answer(status)

    with answering(behaviour) as server:
        client = client_of(server.host, tmp_path)
        client.request(Request("GET", "/v2/a/b/tags/list", APP))
        assert client.limiter.logins.is_accepted(server.host) is (status < 500)


def test_a_login_of_another_repository_is_tried_here_before_a_program_is_told_it(tmp_path: Path) -> None:
    with answering(wants_basic) as server:
        client = client_of(server.host)
        path = put(tmp_path / "auth.json", b"")
        logins = {"a": BASIC.removeprefix("Basic "), "c": base64.b64encode(b"ci:wrong").decode()}
        path.write_text(json.dumps({"auths": {f"{server.host}/{name}": {"auth": logins[name]} for name in logins}}))
        client.registry = replace(client.registry, authfile=path)
        probe = Probe(registry=client.registry, timeout=5, connections=1)
        get(probe.downloads.client)
        assert probe.downloads.address("a/b", BLOB).authorization == BASIC
        asked = len(server.asked)
        probe.downloads.address("c/d", BLOB)
        assert {*server.lines[asked:]} == {f"HEAD /v2/c/d/blobs/{BLOB.digest}"}


def test_a_token_that_was_refused_has_a_successor_and_one_that_was_not_has_none() -> None:
    tokens = Tokens()
    with answering(tokens) as server:
        probe = Probe(registry=client_of(server.host).registry, timeout=5, connections=1)
        get(probe.downloads.client)
        first = probe.downloads.address("a/b", BLOB).authorization
        assert first.startswith("Bearer 1-")
        assert not probe.downloads.is_renewed("a/b", BLOB, first), "it is still good"
        tokens.generation = 2
        assert probe.downloads.is_renewed("a/b", BLOB, first)
        assert probe.downloads.address("a/b", BLOB).authorization.startswith("Bearer 2-")
        asked = len(server.asked)
        assert probe.downloads.is_renewed("a/b", BLOB, first), "another blob's refusal renews nothing twice"
        assert [line for line in server.lines[asked:] if "/token" in line] == []


def test_who_is_refused_whatever_he_says_is_told_so() -> None:
    with answering(lambda _asked: Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})) as server:
        probe = Probe(registry=client_of(server.host).registry, timeout=5, connections=1)
        for ask in (
            lambda: probe.downloads.is_renewed("a/b", BLOB, ""),
            lambda: probe.referrers("a/b", BLOB.digest),
        ):
            with pytest.raises((ToolError, UnsureError), match=server.host):
                ask()


@pytest.mark.parametrize(("status", "error"), [(500, UnsureError), (429, UnsureError)])
def test_a_token_server_that_fails_for_a_while_leaves_it_to_skopeo(status: int, error: type[Exception]) -> None:
    def behaviour(asked: Asked) -> Answer:
        if "/token" in asked.line:
            return Answer(status)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{asked.headers["host"]}/token"'})

    with answering(behaviour) as server, pytest.raises(error):
        get(client_of(server.host))


def test_a_login_that_is_a_token_goes_to_the_token_server_in_a_form(tmp_path: Path) -> None:
    """Clouds give such instead of passwords; in an address it would stand in every log on the way."""
    forms: list[tuple[str, bytes, str]] = []

    def behaviour(asked: Asked) -> Answer:
        if "/token" in asked.line:
            forms.append((asked.line, asked.body, asked.authorization))
            return Answer(body=b'{"access_token": "good"}')
        if asked.authorization == "Bearer good":
            return Answer(body=b"{}")
        challenge = f'Bearer realm="http://{asked.headers["host"]}/token",service="s",scope="repository:a/b:pull"'
        return Answer(401, {"WWW-Authenticate": challenge})

    with answering(behaviour) as server:
        client = client_of(server.host, tmp_path)
        login = {"auth": base64.b64encode(b"<token>:").decode(), "identitytoken": "refresh-me"}
        put(tmp_path / "auth.json", json.dumps({"auths": {server.host: login}}).encode())
        assert get(client) == 200
    ((line, body, authorization),) = forms
    assert (line, authorization) == ("POST /token", "")
    assert b"grant_type=refresh_token&refresh_token=refresh-me" in body


def test_a_token_server_that_refuses_a_password_is_asked_three_times_and_skopeo_never(tmp_path: Path) -> None:
    """It would ask with the same password, and the account would be locked."""

    def behaviour(asked: Asked) -> Answer:
        if "/token" in asked.line:
            return Answer(401)
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{asked.headers["host"]}/token"'})

    with answering(behaviour) as server:
        client = client_of(server.host, tmp_path)
        for said in (*["answered 401"] * 3, *["has refused the login .* 3 times, and is not asked again"] * 2):
            with pytest.raises(ToolError, match=said) as raised:
                get(client)
            assert not isinstance(raised.value, UnsureError)
        assert len([line for line in server.lines if "/token" in line]) == 3


# --- users of a server


def test_addresses_that_guess_passwords_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text("ci:$2y$04$XXUB2dh75RjTsWfig2vOOeL0W.FvulEnva4D2Q79k2aFuRnVzrWQe\n")
    users: Any = read_htpasswd(path)
    for number in range(10_001):
        users._lock_of(f"{number}")
    assert len(users._locks) == 1
    kept = users._lock_of("10000")
    for number in range(20_000, 29_999):
        users._lock_of(f"{number}")
    assert users._lock_of("10000") is kept, "who has a turn keeps it"
