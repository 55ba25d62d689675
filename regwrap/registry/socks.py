"""Connections through a proxy of SOCKS 5 (RFC 1928, logins by RFC 1929), which is given names, as Go does."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from urllib3 import PoolManager
from urllib3.exceptions import NewConnectionError

from regwrap.registry.lean import LeanPool, LeanTlsPool
from regwrap.registry.patience import PatientConnection, PatientTlsConnection, connected

if TYPE_CHECKING:
    import socket
    import ssl

    from urllib3.connection import HTTPConnection

    from regwrap.registry.proxies import Proxy

SCHEMES: Final = {"socks5", "socks5h"}
_PORT: Final = 1080
_NO_LOGIN, _LOGIN = 0, 2
_SAID: Final = {
    1: "general failure", 2: "it is not allowed there", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "it took too long", 7: "command not supported", 8: "address not supported",
}  # fmt: skip
_ADDRESS_BYTES: Final = {1: 4, 4: 16}


def socks_manager(proxy: Proxy, pools: int, size: int, tls: ssl.SSLContext | None) -> PoolManager:
    """Its connections go through `proxy`; urllib3's own needs one more library."""

    class Plain(PatientConnection):
        def _new_conn(self) -> socket.socket:
            return _through(self, proxy)

    class Tls(PatientTlsConnection):
        def _new_conn(self) -> socket.socket:
            return _through(self, proxy)

    class PlainPool(LeanPool):
        ConnectionCls = Plain

    class TlsPool(LeanTlsPool):
        ConnectionCls = Tls

    manager = PoolManager(pools, maxsize=size, ssl_context=tls)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    return manager


def _through(connection: HTTPConnection, proxy: Proxy) -> socket.socket:
    url = urlsplit(proxy.url)
    own = connected(connection, url.hostname or "", url.port or _PORT)
    try:
        _greet(own, proxy)
        _ask(own, connection.host.strip("[]").encode("idna"), connection.port or 0)
    except (OSError, ValueError) as error:
        own.close()
        raise NewConnectionError(connection, f"{proxy.url}: {error}") from error
    return own


def _greet(own: socket.socket, proxy: Proxy) -> None:
    user, _, password = base64.b64decode(proxy.authorization.removeprefix("Basic ")).partition(b":")
    own.sendall(bytes([5, 2, _NO_LOGIN, _LOGIN]) if user else bytes([5, 1, _NO_LOGIN]))
    version, method = _received(own, 2)
    if version != 5 or method not in {_NO_LOGIN, _LOGIN}:
        raise OSError("it is no proxy of SOCKS 5, or wants another login")
    if method == _LOGIN:
        own.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if _received(own, 2)[1]:
            raise OSError("the proxy refused the login")


def _ask(own: socket.socket, name: bytes, port: int) -> None:
    own.sendall(b"\5\1\0\3" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
    _version, said, _reserved, kind = _received(own, 4)
    if said:
        raise OSError(_SAID.get(said, f"failure {said}"))
    _received(own, 2 + (_ADDRESS_BYTES.get(kind) or _received(own, 1)[0]))


def _received(own: socket.socket, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = bytearray(count - len(found))
        if not (came := own.recv_into(piece)):
            raise OSError("the proxy closed the connection")
        found += piece[:came]
    return bytes(found)
