"""Requests to a registry: who gets the credentials, what goes where, and what is told of answers that are none."""

import base64
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.core.location import Registry
from regwrap.core.manifest import MAX_MANIFEST_BYTES
from regwrap.registry.auth import Access
from regwrap.registry.client import Client
from regwrap.registry.credentials import UnsureError
from regwrap.registry.exchange import Body, Request
from regwrap.tools.rate_limit import HostLimiter, RateLimit
from tests.answering import Answer, Answering, Asked, answering, script
from tests.socks import socks_to

BASIC = "Basic " + base64.b64encode(b"ci:secret").decode()
PATH = "/v2/a/b/manifests/1"
APP, OTHER = Access("a/b"), Access("c/d")


def client_of(
    host: str, directory: Path | None = None, *, timeout: float = 5, environment: dict[str, str] | None = None
) -> Client:
    """With `directory`: with credentials for the host in an authfile there."""
    path = None
    if directory is not None:
        path = directory / "auth.json"
        path.write_text(json.dumps({"auths": {host: {"auth": BASIC.removeprefix("Basic ")}}}))
    registry = Registry(host=host, tls_verify=False, plain_http=True, authfile=path)
    limiter = HostLimiter(host=host, rate=RateLimit(most=8))
    return Client(
        registry=registry,
        timeout=timeout,
        connections=2,
        environment=tuple((environment or {}).items()),
        limiter=limiter,
    )


def get(client: Client, target: str = PATH, access: Access = APP, *, redirect: bool = False) -> int:
    return client.request(Request("GET", target, access, redirect=redirect)).status


def wants_basic(asked: Asked) -> Answer:
    if asked.authorization == BASIC:
        return Answer(body=b"{}")
    return Answer(401, {"WWW-Authenticate": 'Basic realm="tests"'}, b"who?")


class Tokens:
    """A registry and its token server in one. A token is for a scope; `generation` makes older ones worthless."""

    def __init__(self) -> None:
        self.generation = 1
        self.document: bytes | None = None

    def __call__(self, asked: Asked) -> Answer:
        if "/token" in asked.line:
            scope = asked.line.partition("scope=")[2]
            given = json.dumps({"access_token": f"{self.generation}-{scope}"}).encode()
            return Answer(body=given if self.document is None else self.document)
        repository = asked.line.split("/manifests")[0].split("/blobs")[0].partition("/v2/")[2]
        action = "pull" if asked.line.startswith(("GET", "HEAD")) else "pull,push"
        wanted = f"repository%3A{repository.replace('/', '%2F')}%3A{action.replace(',', '%2C')}"
        if asked.authorization == f"Bearer {self.generation}-{wanted}":
            return Answer(body=b"{}")
        scope = f"repository:{repository}:{action}"
        realm = f"http://{asked.headers['host']}/token?account=x"
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="tests",scope="{scope}"'})


@pytest.fixture
def basic() -> Iterator[Answering]:
    with answering(wants_basic) as server:
        yield server


# --- who we are


def test_credentials_go_out_when_asked_for_and_then_unasked(basic: Answering, tmp_path: Path) -> None:
    client = client_of(basic.host, tmp_path)
    assert [get(client), get(client), get(client, access=OTHER)] == [200, 200, 200]
    assert [asked.authorization for asked in basic.asked] == ["", BASIC, BASIC, BASIC]
    assert basic.connections == 1


def test_an_api_that_does_not_ask_gets_them_at_once(basic: Answering, tmp_path: Path) -> None:
    assert client_of(basic.host, tmp_path).request(Request("GET", "/api", eager=True)).status == 200
    assert len(basic.asked) == 1


def test_without_credentials_a_refusal_is_the_answer(basic: Answering) -> None:
    answer = client_of(basic.host).request(Request("GET", PATH, APP))
    assert (answer.status, answer.body, len(basic.asked)) == (401, b"who?", 1)


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Digest realm=x", 'Basi realm="x"'])
def test_a_challenge_that_we_do_not_know_is_not_answered(tmp_path: Path, challenge: str) -> None:
    with answering(lambda _asked: Answer(401, {"WWW-Authenticate": challenge})) as server:
        assert get(client_of(server.host, tmp_path)) == 401
        assert [asked.authorization for asked in server.asked] == [""]


def test_a_token_is_fetched_for_the_scope_and_kept(tmp_path: Path) -> None:
    with answering(Tokens()) as server:
        client = client_of(server.host, tmp_path)
        assert [get(client), get(client)] == [200, 200]
        fetched = "GET /token?account=x&service=tests&scope=repository%3Aa%2Fb%3Apull"
        assert server.lines == [f"GET {PATH}", fetched, f"GET {PATH}", f"GET {PATH}"]
        assert server.asked[1].authorization == BASIC
        assert server.asked[2].authorization.startswith("Bearer 1-")


def test_another_repository_costs_no_refused_request() -> None:
    with answering(Tokens()) as server:
        client = client_of(server.host)
        assert [get(client), get(client, "/v2/c/d/manifests/1", OTHER)] == [200, 200]
        assert [asked.line.split("?")[0] for asked in server.asked[3:]] == ["GET /token", "GET /v2/c/d/manifests/1"]
        assert server.asked[1].authorization == ""  # no authfile: an anonymous token


def test_a_token_that_has_expired_is_fetched_again() -> None:
    tokens = Tokens()
    with answering(tokens) as server:
        client = client_of(server.host)
        assert get(client) == 200
        tokens.generation = 2
        assert [get(client), get(client)] == [200, 200]
        assert sum("/token" in line for line in server.lines) == 2


def test_a_token_to_write_is_asked_for_with_the_scope_to_mount() -> None:
    with answering(Tokens()) as server:
        client = client_of(server.host)
        status = client.request(Request("POST", "/v2/a/b/blobs/uploads/", Access("a/b", "c/d"))).status
        assert server.lines[1].endswith("&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%2Fd%3Apull")
        assert status == 401  # this server gives a token for one scope only, and is asked no third time
        assert len(server.asked) == 3


@pytest.mark.parametrize("token", ["", 7, ["x"], "a\r\nX: y", "münz", None])
def test_what_is_no_token_is_never_sent_nor_shown(token: object) -> None:
    tokens = Tokens()
    tokens.document = json.dumps({"token": token}).encode()
    with answering(tokens) as server, pytest.raises(UnsureError, match="answered 200, and no token") as raised:
        get(client_of(server.host))
    assert "X: y" not in str(raised.value)
    assert len(server.asked) == 2


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000])
def test_a_token_server_that_answers_nonsense_makes_us_unsure(body: bytes) -> None:
    tokens = Tokens()
    tokens.document = body
    with answering(tokens) as server, pytest.raises(UnsureError, match="no token"):
        get(client_of(server.host))


@pytest.mark.parametrize(
    ("realm", "message"),
    [("", "names no token server"), ("ftp://x/", "cannot be asked"), ("http://[", "cannot be asked"),
     ("http://127.0.0.1:1/token", "the token server of .* failed")],
)  # fmt: skip
def test_a_realm_that_cannot_be_asked_makes_us_unsure(realm: str, message: str) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    with answering(lambda _asked: Answer(401, challenge)) as server, pytest.raises(UnsureError, match=message):
        get(client_of(server.host))


def test_a_token_server_is_asked_for_nothing_that_the_registry_does_not_name() -> None:
    """Some refuse a service or a scope that is empty."""

    def behaviour(asked: Asked) -> Answer:
        if asked.line.startswith("GET /token"):
            return Answer(body=b'{"token": "t"}')
        if asked.authorization == "Bearer t":
            return Answer(body=b"{}")
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="http://{asked.headers["host"]}/token"'})

    with answering(behaviour) as server:
        assert get(client_of(server.host)) == 200
        assert server.lines == [f"GET {PATH}", "GET /token", f"GET {PATH}"]


@pytest.mark.parametrize("challenges", ['Bearer realm="ftp://x/", Basic', 'Basic, Bearer realm="ftp://x/"'])
def test_a_challenge_that_cannot_be_answered_is_no_end_where_another_one_can(tmp_path: Path, challenges: str) -> None:
    right = [True]

    def behaviour(asked: Asked) -> Answer:
        if asked.authorization == BASIC and right[0]:
            return Answer(body=b"{}")
        return Answer(401, {"WWW-Authenticate": challenges})

    with answering(behaviour) as server:
        assert get(client_of(server.host, tmp_path)) == 200
        right[0] = False
        assert get(client_of(server.host, tmp_path)) == 401  # the registry knows the login, and does not take it
        with pytest.raises(UnsureError, match="cannot be asked"):
            get(client_of(server.host))


def test_a_login_that_a_token_server_has_taken_is_not_locked_by_refusals_for_other_repositories(tmp_path: Path) -> None:
    tokens = Tokens()

    def behaviour(asked: Asked) -> Answer:
        return Answer(401) if "scope=repository%3Adenied" in asked.line else tokens(asked)

    with answering(behaviour) as server:
        client = client_of(server.host, tmp_path)
        assert [get(client, f"/v2/{name}/manifests/1", Access(name)) for name in ("a", "b", "c", "d")] == [200] * 4
        for number in range(5):
            name = f"denied/{number}"
            with pytest.raises(ToolError, match=f"answered 401 for {server.host}/{name}: "):
                get(client, f"/v2/{name}/manifests/1", Access(name))


# --- where answers lead


def test_a_redirect_is_followed_without_our_credentials(tmp_path: Path) -> None:
    with answering(lambda _asked: Answer(body=b"blob")) as store:
        away = Answer(307, {"Location": f"http://{store.host}/x?sig=1"})

        def registry(asked: Asked) -> Answer:
            return away if asked.authorization else wants_basic(asked)

        with answering(registry) as server:
            client = client_of(server.host, tmp_path)
            answer = client.request(Request("GET", "/v2/a/b/blobs/1", APP, redirect=True))
            assert answer.body == b"blob"
            assert client.request(Request("GET", "/v2/a/b/blobs/1", APP)).status == 307
        assert [(asked.line, asked.authorization) for asked in store.asked] == [("GET /x?sig=1", "")]


def test_a_redirect_within_the_registry_keeps_them(tmp_path: Path) -> None:
    def registry(asked: Asked) -> Answer:
        if asked.authorization and asked.line.endswith("blobs/1"):
            return Answer(302, {"Location": "elsewhere?n=1"})
        return wants_basic(asked)

    with answering(registry) as server:
        assert get(client_of(server.host, tmp_path), "/v2/a/b/blobs/1", redirect=True) == 200
        assert (server.asked[-1].line, server.asked[-1].authorization) == ("GET /v2/a/b/blobs/elsewhere?n=1", BASIC)


def test_redirects_without_an_end_make_us_unsure() -> None:
    with answering(lambda asked: Answer(302, {"Location": asked.line[4:] + "x"})) as server:
        with pytest.raises(UnsureError, match="without an end"):
            get(client_of(server.host), redirect=True)
        assert len(server.asked) == 6


@pytest.mark.parametrize(
    "location", ["mailto:x@y", "http://u:p@127.0.0.1/", "http://[", "http://h:99999/", "http://h:0/"]
)
def test_a_redirect_to_no_address_makes_us_unsure(location: str) -> None:
    with answering(lambda _asked: Answer(302, {"Location": location})) as server:
        with pytest.raises(UnsureError, match="answered an address that cannot be asked"):
            get(client_of(server.host), redirect=True)
        assert len(server.asked) == 1


def test_a_redirect_that_leads_nowhere_is_the_answer() -> None:
    with answering(lambda _asked: Answer(302)) as server:
        assert get(client_of(server.host), redirect=True) == 302


def test_an_address_elsewhere_that_nobody_answers_is_named() -> None:
    with answering(script(Answer(302, {"Location": "http://127.0.0.1:1/x"}))) as server:
        with pytest.raises(
            ToolError,
            match=rf"127.0.0.1:1 could not be reached, the address came from .* answer .{server.host}.: .*refused",
        ) as raised:
            get(client_of(server.host), redirect=True)
        assert raised.value.transient


# --- answers that are cut, endless, or do not come


def test_a_connection_that_finds_no_free_descriptor_is_our_trouble() -> None:
    with answering(script(Answer())) as server, ExitStack() as stack:
        client = client_of(server.host)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        with pytest.raises(ToolError, match=r"^too many open files$") as raised:
            client.request(Request("GET", "/v2/"))
    assert not raised.value.outage
    assert "ulimit -n" in raised.value.hint


def test_an_answer_that_is_cut_may_pass() -> None:
    with answering(script(Answer(body=b"x" * 100, cut=9), Answer())) as server:
        client = client_of(server.host)
        with pytest.raises(ToolError, match=f"{server.host} cut its answer off") as raised:
            get(client)
        assert (raised.value.transient, raised.value.host) == (True, server.host)
        assert get(client) == 200


def test_a_refusal_that_is_cut_is_a_refusal() -> None:
    with answering(lambda _asked: Answer(403, body=b"x" * 100, cut=9)) as server:
        assert get(client_of(server.host)) == 403


@pytest.mark.slow
def test_an_endless_answer_is_read_to_a_bound() -> None:
    much = b"x" * (MAX_MANIFEST_BYTES + 1)
    answers = (Answer(body=much[1:]), *2 * [Answer(body=much)], Answer(403, body=much), Answer())  # it is asked twice
    with answering(script(*answers)) as server:
        client = client_of(server.host)
        assert len(client.request(Request("GET", PATH, APP)).body) == MAX_MANIFEST_BYTES
        with pytest.raises(UnsureError, match=f"sent more than {MAX_MANIFEST_BYTES} bytes"):
            get(client)
        assert get(client) == 403
        assert get(client) == 200


@pytest.mark.parametrize("chunk", ["-5", "x", "5;"])
def test_a_number_that_is_none_may_pass(chunk: str) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    with answering(lambda _asked: Answer(headers=headers, body=f"{chunk}\r\n".encode(), cut=9)) as server:
        with pytest.raises(ToolError, match="cut its answer off") as raised:
            get(client_of(server.host))
        assert raised.value.transient


def test_who_hangs_up_on_tls_is_asked_without_it() -> None:
    """Any failure of HTTPS is one for docker, where HTTP is allowed."""

    def serve(server: socket.socket) -> None:
        for _number in range(2):
            with server.accept()[0] as connection:
                if connection.recv(1, socket.MSG_PEEK) != b"\x16":
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        registry = Registry(host=host, tls_verify=False)
        client = Client(registry=registry, timeout=5, connections=1, environment=(), limiter=HostLimiter(host=host))
        assert get(client) == 200
        client.close()
        thread.join()


def test_nobody_there_counts_against_the_host() -> None:
    client = client_of("127.0.0.1:1")
    with pytest.raises(ToolError, match=r"127.0.0.1:1 could not be reached: .*refused") as raised:
        get(client)
    assert "Connection(" not in f"{raised.value}"  # what urllib3 says of itself
    assert (raised.value.transient, raised.value.hint) == (True, Meaning.NOBODY_THERE.hint)
    assert "is down" in str(client.limiter.gave_up(raised.value))


@pytest.mark.slow
def test_a_silent_server_may_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = client_of(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        with pytest.raises(ToolError, match=r"could not be reached: .*timed out") as raised:
            get(client)
    assert raised.value.transient
    assert client.limiter.gave_up(raised.value) is raised.value  # it can be reached, and is not down


@pytest.mark.parametrize(("status", "limit"), [(429, 1), (503, 1), (500, 8), (404, 8), (200, 8)])
def test_a_host_that_wants_less_is_asked_less(status: int, limit: float) -> None:
    with answering(lambda _asked: Answer(status, {"Retry-After": "0"})) as server:
        client = client_of(server.host)
        assert get(client) == status
        assert client.limiter.rate.limit == limit
        assert client.limiter.rate.running == 0


def test_a_host_that_answers_again_is_asked_more_again() -> None:
    statuses = iter([429, *[200] * 5])
    with answering(lambda _asked: Answer(next(statuses), {"Retry-After": "0"})) as server:
        client = client_of(server.host)
        assert [get(client) for _ in range(6)] == [429, *[200] * 5]
        assert 3 < client.limiter.rate.limit < 4


def test_a_pause_that_a_host_demands_is_kept() -> None:
    with answering(lambda _asked: Answer(429, {"Retry-After": "100"})) as server:
        client = client_of(server.host)
        get(client)
        assert client.limiter.rate.delay(client.limiter.clock()) > 90


# --- bodies and schemes


def test_a_body_is_sent_again_after_a_challenge(basic: Answering, tmp_path: Path) -> None:
    body = Body("application/octet-stream", (b"one", memoryview(b"two")), 6)
    assert client_of(basic.host, tmp_path).request(Request("PUT", "/v2/a/b/x?digest=1", APP, body)).status == 200
    assert [asked.body for asked in basic.asked] == [b"onetwo", b"onetwo"]
    assert basic.asked[1].headers["content-type"] == "application/octet-stream"
    assert "application/vnd.oci.image.index.v1+json" in basic.asked[1].headers["accept"]


def test_plain_http_is_found_out_once_where_tls_is_not_demanded() -> None:
    with answering(lambda _asked: Answer()) as server:
        registry = Registry(host=server.host, tls_verify=False)
        client = Client(
            registry=registry, timeout=5, connections=1, environment=(), limiter=HostLimiter(host=server.host)
        )
        assert [get(client), get(client)] == [200, 200]
        assert (len(server.asked), server.connections) == (2, 2)


@pytest.mark.slow
def test_plain_http_is_not_spoken_where_tls_is_demanded() -> None:
    with answering(lambda _asked: Answer()) as server:
        registry = Registry(host=server.host, tls_verify=True)
        client = Client(
            registry=registry, timeout=5, connections=1, environment=(), limiter=HostLimiter(host=server.host)
        )
        with pytest.raises(UnsureError, match=f"{server.host}: .*SSL"):
            get(client)
        assert server.asked == []


# --- proxies


def test_a_proxy_gets_its_login_and_the_whole_address() -> None:
    with answering(lambda _asked: Answer(body=b"by proxy")) as proxy:
        client = client_of("registry.test:5000", environment={"HTTP_PROXY": f"us%20er:p%40ss@{proxy.host}"})
        assert client.request(Request("GET", PATH, APP)).body == b"by proxy"
        assert proxy.lines == [f"GET http://registry.test:5000{PATH}"]
        login = base64.b64decode(proxy.asked[0].headers["proxy-authorization"].removeprefix("Basic "))
        assert login == b"us er:p@ss"


@pytest.mark.slow
def test_through_a_proxy_tls_is_a_tunnel() -> None:
    with answering(lambda _asked: Answer(407)) as proxy:
        registry = Registry(host="registry.test", tls_verify=True)
        environment = (("HTTPS_PROXY", f"http://u:hidden@{proxy.host}"),)
        client = Client(
            registry=registry, timeout=5, connections=1, environment=environment, limiter=HostLimiter(host="x")
        )
        with pytest.raises(ToolError, match="407") as raised:
            get(client)
        assert proxy.lines == ["CONNECT registry.test:443"]
        assert proxy.asked[0].headers["proxy-authorization"] == "Basic dTpoaWRkZW4="
        assert "hidden" not in str(raised.value)


def test_a_proxy_that_only_skopeo_can_use_makes_us_unsure() -> None:
    client = client_of("registry.test", environment={"HTTP_PROXY": "quic://u:hidden@127.0.0.1:1"})
    with pytest.raises(UnsureError, match=r"quic://127\.0\.0\.1:1 is a proxy that only skopeo can use"):
        get(client)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("login", [None, (b"u", b"p@ss")])
def test_a_proxy_of_socks_is_given_names(basic: Answering, tmp_path: Path, scheme: str, login: Any) -> None:
    with socks_to(basic.host, login) as (proxy, asked):
        user = "u:p%40ss@" if login else ""
        client = client_of("registry.test:81", tmp_path, environment={"HTTP_PROXY": f"{scheme}://{user}{proxy}"})
        assert get(client) == 200
        client.close()
    assert set(asked) == {"registry.test:81"}


@pytest.mark.parametrize(
    ("wanted", "refusal", "said"),
    [(None, 4, "host unreachable"), (None, 99, "failure 99"), ((b"u", b"other"), 0, "refused the login")],
)
def test_a_proxy_of_socks_that_refuses_is_named(wanted: Any, refusal: int, said: str) -> None:
    with socks_to("127.0.0.1:1", wanted, refusal) as (proxy, _asked):
        client = client_of("registry.test", environment={"HTTP_PROXY": f"socks5://u:hidden@{proxy}"})
        with pytest.raises(ToolError, match=f"could not be reached.*{proxy}.*{said}") as raised:
            get(client)
    assert "hidden" not in f"{raised.value}"


def test_what_is_no_proxy_of_socks_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        client = client_of("registry.test", environment={"HTTP_PROXY": f"socks5://127.0.0.1:{other.getsockname()[1]}"})

        def greet() -> None:
            with other.accept()[0] as connection:
                connection.sendall(b"SSH-2.0")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ToolError, match=r"no proxy of SOCKS 5"):
            get(client)
        thread.join()


# --- patience: a registry that stores a large blob says nothing meanwhile


def slow(method: str) -> Callable[[Asked], Answer]:
    def behaviour(asked: Asked) -> Answer:
        if asked.line.startswith(method):
            time.sleep(1)
        return Answer(201)

    return behaviour


@pytest.mark.exhaustive
@pytest.mark.parametrize("away", [False, True])
def test_who_gets_a_body_has_more_time_to_answer(*, away: bool) -> None:
    body = Body("application/octet-stream", b"blob", 4)
    with answering(slow("PUT")) as server:
        client = client_of(server.host, timeout=0.5)
        if away:
            assert client.elsewhere("PUT", f"http://{server.host}/x", body).status == 201
        else:
            assert client.request(Request("PUT", "/v2/x", APP, body)).status == 201


@pytest.mark.slow
def test_who_is_only_asked_has_not() -> None:
    with answering(slow("GET")) as server:
        client = client_of(server.host, timeout=0.2)
        with pytest.raises(ToolError, match="timed out"):
            get(client)
        with pytest.raises(ToolError, match="timed out"):
            client.elsewhere("GET", f"http://{server.host}/x")


# --- disguises: some registries say 404 or 403 to who may not see a thing


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("asks", [True, False])
def test_a_login_is_tried_where_a_thing_is_hidden_from_strangers(tmp_path: Path, status: int, *, asks: bool) -> None:
    def hiding(asked: Asked) -> Answer:
        if asked.line == "GET /v2/" and asks:
            return Answer(401, {"WWW-Authenticate": 'Basic realm="tests"'})
        return Answer(body=b"{}") if asked.authorization == BASIC else Answer(status)

    with answering(hiding) as server:
        client = client_of(server.host, tmp_path)
        assert [get(client), get(client)] == [200, 200]
        assert server.lines == [f"GET {PATH}", "GET /v2/", f"GET {PATH}", f"GET {PATH}"]
        assert [asked.authorization for asked in server.asked] == ["", "", BASIC, BASIC]
        assert get(client_of(server.host)) == status
        assert len(server.asked) == 5


def test_what_is_really_absent_is_asked_for_once_more_and_then_no_more(tmp_path: Path) -> None:
    with answering(lambda _asked: Answer(404)) as server:
        client = client_of(server.host, tmp_path)
        assert [get(client), get(client), get(client)] == [404, 404, 404]
        assert server.lines == [f"GET {PATH}", "GET /v2/", *3 * [f"GET {PATH}"]]


def test_the_token_that_a_hidden_thing_was_shown_for_is_what_the_next_request_says(tmp_path: Path) -> None:
    def hiding(asked: Asked) -> Answer:
        if "/token" in asked.line:
            return Answer(body=b'{"token": "t"}')
        if asked.line == "GET /v2/":
            realm = f"http://{asked.headers['host']}/token"
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="tests"'})
        return Answer(body=b"{}") if asked.authorization == "Bearer t" else Answer(404)

    with answering(hiding) as server:
        client = client_of(server.host, tmp_path)
        assert [get(client), get(client)] == [200, 200]
        ways = [line.split("?")[0] for line in server.lines]
        assert ways == [f"GET {PATH}", "GET /v2/", "GET /token", f"GET {PATH}", f"GET {PATH}"]


def test_connections_are_closed_with_the_client() -> None:
    with answering(lambda _asked: Answer()) as server:
        client = client_of(server.host)
        assert [get(client), get(client)] == [200, 200]
        assert server.connections == 1
        client.close()
        assert get(client) == 200
        assert server.connections == 2
