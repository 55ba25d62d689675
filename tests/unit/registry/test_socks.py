"""What is said to a proxy of SOCKS 5, byte by byte (RFC 1928, RFC 1929), and what is told of one that refuses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from regwrap.core.errors import ToolError
from tests.socks import socks_to
from tests.unit.registry.test_client import client_of, get

CONNECT = b"\5\1\0\3\x0dregistry.test" + (5000).to_bytes(2, "big")
HTTP = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def proxy_that_says(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """HOST:PORT, and what one client sent before each answer and behind the last; b"" where it has hung up. After an
    answer without bytes the proxy hangs up."""
    heard: list[bytes] = []

    def serve() -> None:
        with suppress(OSError), server.accept()[0] as client:
            client.settimeout(10)
            for answer in answers:
                heard.append(client.recv(65536))
                if not answer:
                    return
                client.sendall(answer)
            heard.append(client.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", heard
        thread.join(20)


def refusal(proxy: str, host: str = "registry.test:5000", user: str = "") -> ToolError:
    with pytest.raises(ToolError, match=f"{host} could not be reached") as raised:
        get(client_of(host, environment={"HTTP_PROXY": f"socks5://{user}{proxy}"}))
    return raised.value


@pytest.mark.parametrize(
    ("user", "greeting", "login"),
    [("", b"\5\1\0", ()), ("u:p%40ss@", b"\5\2\0\2", (b"\1\1u\4p@ss",)), ("u:@", b"\5\2\0\2", (b"\1\1u\0",))],
)
def test_what_a_proxy_hears_is_what_the_standard_says(user: str, greeting: bytes, login: tuple[bytes, ...]) -> None:
    method, taken = (b"\5\2", (b"\1\0",)) if login else (b"\5\0", ())
    with proxy_that_says(method, *taken, b"\5\0\0\1" + bytes(6), HTTP) as (proxy, heard):
        client = client_of("registry.test:5000", environment={"HTTP_PROXY": f"socks5://{user}{proxy}"})
        assert get(client) == 200
        client.close()
    assert heard[:-2] == [greeting, *login, CONNECT]
    assert heard[-2].startswith(b"GET /v2/")


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((b"\4\0",), "no proxy of SOCKS 5"),
        ((b"\5\xff",), "wants another login"),
        ((b"\5\2", b"\1\1"), "the proxy refused the login"),
        ((b"\5\0", b"\5\5\0\1"), "connection refused"),
    ],
)
def test_a_proxy_that_refuses_is_told_and_left(answers: tuple[bytes, ...], said: str) -> None:
    with proxy_that_says(*answers) as (proxy, heard):
        error = refusal(proxy, user="u:p@")
        assert said in f"{error}"
    assert heard[len(answers) :] == [b""]  # no connection to it stays open


@pytest.mark.parametrize("answers", [(b"",), (b"\5\0", b"")])
def test_a_proxy_that_hangs_up_in_between_is_told(answers: tuple[bytes, ...]) -> None:
    with proxy_that_says(*answers) as (proxy, _heard):
        assert "the proxy closed the connection" in f"{refusal(proxy)}"


@pytest.mark.parametrize(("host", "user"), [("x" * 64 + ".example:5000", ""), ("registry.test", "u" * 256 + ":p@")])
def test_what_cannot_be_said_to_a_proxy_is_told_and_the_proxy_is_left(host: str, user: str) -> None:
    with proxy_that_says(b"\5\2" if user else b"\5\0") as (proxy, heard):
        error = refusal(proxy, host, user)
        assert f"socks5://{proxy}" in f"{error}"
    assert heard[1:] == [b""]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "general failure"),
        (2, "it is not allowed there"),
        (3, "network unreachable"),
        (4, "host unreachable"),
        (5, "connection refused"),
        (6, "it took too long"),
        (7, "command not supported"),
        (8, "address not supported"),
        (9, "failure 9"),
    ],
)
def test_why_a_proxy_does_not_lead_there_is_told_in_words(code: int, said: str) -> None:
    with socks_to("127.0.0.1:1", refusal=code) as (proxy, _asked):
        assert f"socks5://{proxy}: {said}" in f"{refusal(proxy)}"


def test_a_proxy_that_is_named_without_a_port_is_looked_for_at_that_of_socks(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[tuple[str, int]] = []

    def unknown(host: str, port: int, *_more: object) -> None:
        looked_up.append((host, port))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    refusal("proxy.test")
    assert looked_up == [("proxy.test", 1080)]
