"""Which proxy a request goes through, from HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go reads them
(golang.org/x/net/http/httpproxy), since skopeo beside us does. Pure.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address
    from urllib.parse import SplitResult

_PORTS: Final = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Proxy:
    """`url` has no login in it, so that it can be shown; `authorization` is the header's value, or empty."""

    url: str
    authorization: str = ""

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme


def proxy_for(scheme: str, server: str, variables: Mapping[str, str]) -> Proxy | None:
    """Through what `scheme`://`server` is asked; None: directly."""
    proxy = parse_proxy(variables.get(f"{scheme.upper()}_PROXY", ""))
    if proxy is None:
        return None
    name, port = _host_and_port(server)
    return None if _is_direct(name, port or _PORTS[scheme], variables.get("NO_PROXY", "")) else proxy


def curl_variables(scheme: str, server: str, variables: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The same for curl, which reads them otherwise: of NO_PROXY it knows no ports, and takes the name behind a leading
    dot as well, and gives a proxy of `socks5:` no names. So `server` is told as we read it, and others that an answer
    leads to as near as can be."""
    names = (("http_proxy", "HTTP_PROXY"), ("https_proxy", "HTTPS_PROXY"))
    found = tuple(
        (own, re.sub("^socks5:", "socks5h:", variables[name].strip()))
        for own, name in names
        if parse_proxy(variables.get(name, ""))
    )
    name, _port = _host_and_port(server)
    is_direct = proxy_for(scheme, server, variables) is None
    entries = [entry.strip().lower() for entry in variables.get("NO_PROXY", "").split(",")]
    if not found or "*" in entries:
        return ()
    known = [_host_and_port(entry)[0] for entry in entries if entry and not _host_and_port(entry)[1]]
    kept = [entry for entry in known if is_direct or not _is_direct(name, "", entry.removeprefix("."))]
    return (*found, ("no_proxy", ",".join((*kept, "localhost,127.0.0.0/8,::1", *([name] if is_direct else [])))))


def parse_proxy(text: str) -> Proxy | None:
    """A variable's value: a URL, or only HOST[:PORT], with a login or without. None for what is no address."""
    url = _split(text if "://" in text else f"http://{text}")
    if url is None or not url.hostname:
        return None
    login, _, server = url.netloc.rpartition("@")
    user, _, password = login.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return Proxy(f"{url.scheme}://{server}", f"Basic {base64.b64encode(pair).decode()}" if login else "")


def _split(text: str) -> SplitResult | None:
    with suppress(ValueError):
        url = urlsplit(text.strip())
        if url.port is None or url.port > 0:
            return url
    return None


def _is_direct(name: str, port: str, no_proxy: str) -> bool:
    address = _address(name)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(entry and _fits(entry, name, address, port) for entry in entries)


def _fits(entry: str, name: str, address: IPv4Address | IPv6Address | None, port: str) -> bool:
    """Whether an entry of NO_PROXY means the host: `*`, a network, or an address or name with or without a port. A name
    means its subdomains as well, with a dot in front only those."""
    if entry == "*":
        return True
    if "/" in entry:
        with suppress(ValueError):
            return address is not None and address in ip_network(entry, strict=False)
    host, wanted_port = _host_and_port(entry)
    if wanted_port not in {"", port}:
        return False
    if (wanted := _address(host)) is not None:
        return wanted == address
    host = host.removeprefix("*") if host.startswith("*.") else host
    return bool(host) and (name == host or name.endswith(host if host.startswith(".") else f".{host}"))


def _host_and_port(text: str) -> tuple[str, str]:
    """HOST[:PORT] in lower case; an IPv6 address may be in brackets, and must be if it has a port."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        host, port = text, ""
    return host.removeprefix("[").removesuffix("]").lower(), port


def _address(name: str) -> IPv4Address | IPv6Address | None:
    with suppress(ValueError):
        return ip_address(name)
    return None
