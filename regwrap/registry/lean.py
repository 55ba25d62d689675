"""A question without a body over a connection that is open already: one write, and its answer in as few reads as come.

A run that finds nothing changed asks hundreds of them, and each costs several times the CPU by way of urllib3 and of
http.client, which reads heads with the parser of e-mails. urllib3 opens connections and keeps them; whatever is odd
about a question or its answer is asked by urllib3 again, which also says what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from urllib3 import HTTPConnectionPool, HTTPHeaderDict, HTTPSConnectionPool

from regwrap.core.manifest import MAX_MANIFEST_BYTES
from regwrap.registry.patience import PatientConnection, PatientTlsConnection, head_is_read

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from urllib3 import PoolManager

_HEAD_BYTES: Final = 8 * 1024
_END: Final = b"\r\n\r\n"
_TARGET: Final = re.compile(r"/[!-~]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+")  # no address of IPv6
_FIELDS: Final = re.compile(r"(?:[!-9;-~]+: [ -~]*\r\n)*")
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: .*)?")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")  # RFC 9112, section 5
_BODILESS: Final = {204, 304}


class OddError(Exception):
    """The answer is not of the plain kind."""


@dataclass(frozen=True, slots=True)
class LeanAnswer:
    """All of it. `ends`: the connection is of no use any more."""

    status: int
    headers: HTTPHeaderDict
    body: bytes
    ends: bool


class LeanPool(HTTPConnectionPool):
    """urllib3's connections to one server. `is_odd`: it has answered oddly once, and is left to urllib3 since."""

    is_odd = False

    def answer(self, method: str, target: str, fields: Mapping[str, str], seconds: float | None) -> LeanAnswer | None:
        """Of a HEAD or GET, which may be asked twice; `seconds` between two bytes. None where urllib3 has to ask: no
        connection is open, one has ended, what it says is odd. Raises ReadTimeoutError."""
        head = self._head(method, target, fields)
        if not head or self.is_odd:
            return None
        connection = self._get_conn()
        plain: socket.socket | None = connection.sock  # type: ignore[attr-defined]  # of http.client's class
        answer = None
        try:
            if plain is not None:
                plain.settimeout(seconds)
                plain.sendall(head)
                answer = _read(plain, has_body=method != "HEAD")
        except OddError:
            self.is_odd = True
        except OSError as error:
            self._raise_timeout(error, target, seconds)
        finally:
            if plain is not None and (answer is None or answer.ends):
                connection.close()
            self._put_conn(connection)
        return answer

    def _head(self, method: str, target: str, fields: Mapping[str, str]) -> bytes:
        """Of the request; empty where something in it is not plain."""
        own = self.port in {None, 443 if self.scheme == "https" else 80}
        said = {"Host": self.host if own else f"{self.host}:{self.port}", "Accept-Encoding": "identity", **fields}
        text = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        if not (_TARGET.fullmatch(target) and _HOST.fullmatch(self.host) and _FIELDS.fullmatch(text)):
            return b""
        return f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("ascii")


class LeanTlsPool(LeanPool, HTTPSConnectionPool):
    """The same with TLS."""


class _Pool(LeanPool):
    ConnectionCls = PatientConnection


class _TlsPool(LeanTlsPool):
    ConnectionCls = PatientTlsConnection


def lean(manager: PoolManager) -> PoolManager:
    """The same manager, whose connections are patient, and lean where they can."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager


def _read(plain: socket.socket, *, has_body: bool) -> LeanAnswer:
    """Raises OddError, and OSError where it is cut off."""
    buffer, have, end = bytearray(_HEAD_BYTES), 0, -1
    with memoryview(buffer) as view:
        while end < 0:
            if have == _HEAD_BYTES:
                raise OddError
            have += _received(plain, view[have:])
            end = buffer.find(_END, 0, have)
    status, headers = _parsed(bytes(buffer[:end]))
    head_is_read()
    start, size = end + len(_END), 0
    if has_body and status not in _BODILESS:
        size = _size(headers)
    body = bytearray(buffer[start : min(have, start + size)])
    missing, came = size - len(body), have - start - len(body)
    if missing:
        rest = memoryview(bytearray(missing))
        while missing:
            missing -= _received(plain, rest[-missing:])
        body += rest
    ends = bool(came) or headers.get("Connection", "keep-alive").lower() != "keep-alive"
    return LeanAnswer(status, headers, bytes(body), ends)


def _received(plain: socket.socket, room: memoryview) -> int:
    if count := plain.recv_into(room):
        return count
    raise ConnectionResetError


def _parsed(head: bytes) -> tuple[int, HTTPHeaderDict]:
    first, *lines = head.split(b"\r\n")
    status, headers = _STATUS.fullmatch(first), HTTPHeaderDict()
    if status is None:
        raise OddError
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:  # a folded line, for one
            raise OddError
        headers.add(field[1].decode("ascii"), field[2].decode("latin-1"))
    return int(status[1]), headers


def _size(headers: HTTPHeaderDict) -> int:
    """Of the body, where its head says it in the plain way."""
    said = headers.get("Content-Length", "")
    if {"transfer-encoding", "content-encoding"} & {name.lower() for name in headers} or not _is_number(said):
        raise OddError
    if (size := int(said)) > MAX_MANIFEST_BYTES:
        raise OddError
    return size


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
