"""Addresses that registries answer: what they mean, and what they do not lead to."""

from urllib.parse import urlsplit

import pytest

from regwrap.registry.addresses import answered_address, is_same_server, next_page, server_of, target_of
from regwrap.registry.credentials import UnsureError

BASE = "https://r.example/v2/a/tags/list?n=2"


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_docker_hub_has_one_server(name: str) -> None:
    assert server_of(name) == "registry-1.docker.io"
    assert is_same_server(urlsplit("https://registry-1.docker.io/v2/x"), name)


def test_other_names_are_their_servers() -> None:
    assert server_of("docker.io.example:5000") == "docker.io.example:5000"


@pytest.mark.parametrize(
    ("address", "host", "same"),
    [
        ("https://r.example/x", "r.example", True),
        ("https://r.example:443/x", "r.example", True),
        ("http://r.example:80/x", "r.example", True),
        ("http://r.example/x", "r.example", True),
        ("https://R.Example/x", "r.example:443", True),
        ("https://r.example:5000/x", "r.example:5000", True),
        ("https://[::1]:443/x", "[::1]", True),
        ("https://r.example:5000/x", "r.example", False),
        ("https://r.example:8443/x", "r.example:8", False),
        ("https://s.r.example/x", "r.example", False),
        ("https://r.example.evil/x", "r.example", False),
    ],
)
def test_the_same_server(address: str, host: str, *, same: bool) -> None:
    assert is_same_server(urlsplit(address), host) is same


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/x?y=1", "https://r.example/x?y=1"),
        ("x", "https://r.example/v2/a/tags/x"),
        ("?n=3", "https://r.example/v2/a/tags/list?n=3"),
        ("//s.example/x", "https://s.example/x"),
        ("http://s.example:81/x", "http://s.example:81/x"),
    ],
)
def test_an_address_is_resolved(text: str, address: str) -> None:
    assert answered_address(BASE, text).geturl() == address


@pytest.mark.parametrize(
    "text",
    ["mailto:@h:1/x", "http:///x", "http://u:p@h/", "http://@h/", "http://[", "http://h:x/", "http://h:0/",
     "http://h:70000/", "file:///etc/passwd", "http://[v1.x]:a/"],
)  # fmt: skip
def test_what_cannot_be_asked_is_named_with_the_host(text: str) -> None:
    with pytest.raises(UnsureError, match=r"^r\.example answered an address that cannot be asked: '"):
        answered_address(BASE, text)


@pytest.mark.parametrize(
    ("address", "target"),
    [("https://r.example", "/"), ("https://r.example?x=1", "/?x=1"), ("https://r.example/a?x=1#y", "/a?x=1")],
)
def test_the_target_of_a_request_line(address: str, target: str) -> None:
    assert target_of(urlsplit(address)) == target


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("", None),
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "/v2/a/tags/list?last=b&n=2"),
        ("<list?last=b>;rel=next", "/v2/a/tags/list?last=b"),
        ("<list?last=b>rel=next", "/v2/a/tags/list?last=b"),
        ('<https://inner.example:5000/v2/a/tags/list?last=b>; rel="next"', "/v2/a/tags/list?last=b"),
        ('</p>; rel="prev", </n>; title="x"; REL = "Next"', "/n"),
        ('</p>; rel="prev",</n>; rel="last next"', "/n"),
        ('</p>; rel="prev"', None),
        ('</p>; title="rel=next"', None),
        ('</p>; rel="nextish"', None),
        ("</never-closed; rel=next", None),
        ("/n; rel=next", None),
        ("<" * 50_000, None),
        ("<>" * 50_000, None),
    ],
)
def test_the_next_page(link: str, target: str | None) -> None:
    assert next_page(BASE, link) == target


def test_a_next_page_that_is_no_address_is_refused() -> None:
    with pytest.raises(UnsureError, match="cannot be asked"):
        next_page(BASE, "<mailto:@evil.example:80/x>; rel=next")
