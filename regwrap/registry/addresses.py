"""Addresses: the server that a registry's name means, and where one leads that a registry answers (Location, Link, the
realm of a token server). What a registry answers is foreign text: it is resolved here and nowhere else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urljoin, urlsplit

from regwrap.core.hosts import HUB_NAMES
from regwrap.registry.credentials import UnsureError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_DOCKER_HUB: Final = "registry-1.docker.io"
_MAX_HEADER: Final = 16 * 1024


def server_of(host: str) -> str:
    """The HOST[:PORT] that answers for a registry's name: Docker Hub's is another one."""
    return _DOCKER_HUB if host in HUB_NAMES else host


def answered_address(base: str, text: str) -> SplitResult:
    """An address that was answered to a request of `base`, as RFC 3986 resolves it. Raises UnsureError."""
    try:
        address = urlsplit(urljoin(base, text))
        if address.scheme in {"http", "https"} and address.hostname and address.port != 0 and "@" not in address.netloc:
            return address
    except ValueError:
        pass  # as for `http://[` and ports that are none
    raise UnsureError(f"{urlsplit(base).netloc} answered an address that cannot be asked: {text[:200]!r}")


def is_same_server(address: SplitResult, host: str) -> bool:
    """Whether an address leads to the registry `host` itself. Its scheme does not count: a registry does not always
    know what ends TLS in front of it, and it is asked by the scheme that works."""
    return _normalised(address.netloc) == _normalised(host)


def target_of(address: SplitResult) -> str:
    """Path and query, as a request line has them."""
    return f"{address.path or '/'}?{address.query}" if address.query else address.path or "/"


def next_page(base: str, link: str) -> str | None:
    """The target that a Link header (RFC 8288) names as the next page. Its host may be one that only a proxy knows."""
    link = link[:_MAX_HEADER]
    start = link.find("<")
    while start >= 0 and (end := link.find(">", start)) >= 0:
        following = link.find("<", end)
        parameters = link[end + 1 : following if following >= 0 else len(link)]
        if any(_is_next(parameter) for parameter in parameters.strip(" ,").split(";")):
            return target_of(answered_address(base, link[start + 1 : end]))
        start = following
    return None


def _is_next(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip().lower() == "rel" and "next" in value.strip().strip('"').lower().split()


def _normalised(netloc: str) -> str:
    return server_of(re.sub(r":(80|443)$", "", netloc.lower()))
