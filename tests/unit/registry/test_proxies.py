"""Proxies, as Go reads the variables: the cases of golang.org/x/net/http/httpproxy, and those of people's networks."""

import pytest

from regwrap.registry.proxies import Proxy, curl_variables, parse_proxy, proxy_for

VARIABLES = {"HTTP_PROXY": "http://plain:3128", "HTTPS_PROXY": "https://secure:3129"}


def is_direct(server: str, no_proxy: str, scheme: str = "https") -> bool:
    return proxy_for(scheme, server, {**VARIABLES, "NO_PROXY": no_proxy}) is None


def test_the_scheme_chooses_the_variable() -> None:
    assert proxy_for("http", "r.example", VARIABLES) == Proxy("http://plain:3128")
    assert proxy_for("https", "r.example", VARIABLES) == Proxy("https://secure:3129")
    assert proxy_for("https", "r.example", {"HTTP_PROXY": "http://plain:3128"}) is None
    assert proxy_for("https", "r.example", {}) is None


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("http://p.example:3128", "http://p.example:3128", ""),
        ("p.example:3128", "http://p.example:3128", ""),
        ("p.example", "http://p.example", ""),
        ("10.0.0.1:3128", "http://10.0.0.1:3128", ""),
        ("[::1]:3128", "http://[::1]:3128", ""),
        ("https://p.example/", "https://p.example", ""),
        ("socks5://p.example:1080", "socks5://p.example:1080", ""),
        ("http://u:p@p.example", "http://p.example", "dTpw"),
        ("u:p@p.example:3128", "http://p.example:3128", "dTpw"),
        ("http://us%20er:p%40ss@p.example", "http://p.example", "dXMgZXI6cEBzcw=="),
        ("http://u@p.example", "http://p.example", "dTo="),
        ("http://m%C3%BC:x@p.example", "http://p.example", "bcO8Ong="),
    ],
)
def test_the_address_of_a_proxy(text: str, url: str, login: str) -> None:
    assert parse_proxy(text) == Proxy(url, f"Basic {login}" if login else "")


@pytest.mark.parametrize("text", ["", "http://", "http://[", "http://h:x", "http://h:99999", "http://h:0", ":3128"])
def test_what_is_no_address_is_no_proxy(text: str) -> None:
    assert parse_proxy(text) is None


@pytest.mark.parametrize(
    ("server", "no_proxy"),
    [
        ("r.example", "*"),
        ("r.example", "x, *"),
        ("r.example", "r.example"),
        ("R.Example", " r.EXAMPLE "),
        ("r.example", "example"),
        ("a.r.example", "r.example"),
        ("a.r.example", ".r.example"),
        ("a.r.example", "*.r.example"),
        ("r.example:5000", "r.example"),
        ("r.example:5000", "r.example:5000"),
        ("r.example", "r.example:443"),
        ("r.example", "x.example,,r.example"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:5000", "10.0.0.0/8"),
        ("10.1.2.3:5000", "10.1.2.3:5000"),
        ("10.1.2.3", "10.9.9.9/8"),
        ("[fd00::1]:5000", "fd00::1"),
        ("[fd00::1]:5000", "[fd00::1]:5000"),
        ("[fd00:0::1]", "[fd00::1]"),
        ("[fd00::1]", "fd00::/8"),
        ("localhost:5000", ""),
        ("127.9.9.9:5000", ""),
        ("[::1]:5000", ""),
    ],
)
def test_what_is_asked_directly(server: str, no_proxy: str) -> None:
    assert is_direct(server, no_proxy)


@pytest.mark.parametrize(
    ("server", "no_proxy"),
    [
        ("r.example", ""),
        ("r.example", ","),
        ("r.example", ".r.example"),
        ("r.example", "*.r.example"),
        ("r.example", "ar.example"),
        ("ar.example", "r.example"),
        ("r.example:5000", "r.example:5001"),
        ("r.example", "r.example:80"),
        ("r.example", ":443"),
        ("r.example", "10.0.0.0/8"),
        ("10.1.2.3", "r.example/8"),
        ("10.1.2.3", "10.0.0.0/99"),
        ("r.example", "r.example/8"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.4"),
        ("10.1.2.3:5000", "10.1.2.3:5001"),
        ("[fd00::1]", "fe00::/8"),
        ("localhost.example", "localhost"),
    ],
)
def test_what_goes_through_the_proxy(server: str, no_proxy: str) -> None:
    assert not is_direct(server, no_proxy)


def test_the_port_is_the_schemes() -> None:
    assert is_direct("r.example", "r.example:80", scheme="http")
    assert not is_direct("r.example", "r.example:443", scheme="http")


def for_curl(server: str, scheme: str = "https", **variables: str) -> dict[str, str]:
    return dict(curl_variables(scheme, server, variables))


def test_curl_gets_the_proxies_by_the_names_that_it_reads() -> None:
    found = for_curl(
        "r.example", HTTP_PROXY="http://p:1", HTTPS_PROXY="http://u:pw@q:2", NO_PROXY="a.example, 10.0.0.0/8"
    )
    assert found == {
        "http_proxy": "http://p:1",
        "https_proxy": "http://u:pw@q:2",
        "no_proxy": "a.example,10.0.0.0/8,localhost,127.0.0.0/8,::1",
    }
    several = for_curl("r.example", HTTPS_PROXY="http://p:1", NO_PROXY="a.example:443, ,.b.example,[fd00::1]")
    assert several["no_proxy"] == ".b.example,fd00::1,localhost,127.0.0.0/8,::1"
    assert for_curl("r.example", HTTPS_PROXY=" socks5://p:1 ")["https_proxy"] == "socks5h://p:1"
    assert for_curl("r.example", HTTPS_PROXY="http://p:1", NO_PROXY="a.example, *") == {}
    assert for_curl("r.example") == {}
    assert for_curl("r.example", HTTPS_PROXY="http://[") == {}


@pytest.mark.parametrize(
    ("server", "no_proxy", "is_direct"),
    [
        ("r.example", "r.example", True),
        ("r.example:5000", "r.example:5000", True),
        ("r.example:5000", "r.example:443", False),
        ("r.example", ".example", True),
        ("example", ".example", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("127.0.0.1:5000", "", True),
    ],
)
def test_curl_goes_the_way_that_we_and_skopeo_go(server: str, no_proxy: str, is_direct: bool) -> None:
    """curl takes no port in NO_PROXY, and a name behind a dot for the name itself too."""
    found = for_curl(server, HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy)["no_proxy"].split(",")
    name = server.partition(":")[0]
    assert (name in found) == is_direct
    assert ".example" not in found or is_direct
