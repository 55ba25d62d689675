"""Sockets that know for how long an answer may take as a whole, how long its head may be, and when the run ends.

A timeout of the kernel's counts from byte to byte: a server that sends one a second keeps a client for days. Each wait
here is cut into short ones, and between two of them the bounds are looked at.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from regwrap.core.interruption import is_interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    _Socket = socket.socket
else:
    _Socket = object  # the other base of a class below is a socket

_LOOK_SECONDS: Final = 0.25
_HEAD_BYTES: Final = 256 * 1024  # all heads of one answer, those of 1xx too
_SEND_BYTES: Final = 256 * 1024


class EndlessAnswerError(TimeoutError):
    """Bytes came, and not all of them within the time of an answer as a whole: the next try would take as long."""


class _Now(threading.local):
    """The answer that this thread waits for."""

    seconds: float | None = None
    deadline: float | None = None
    head: int | None = None
    stopping: threading.Event | None = None

    def look(self) -> None:
        """Raises OSError where the wait has to end."""
        if is_interrupted() or (self.stopping is not None and self.stopping.is_set()):
            raise OSError(errno.ECANCELED, "regwrap is stopping")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise EndlessAnswerError(errno.ETIMEDOUT, f"the answer was not complete after {self.seconds:g} s")

    def came(self, count: int) -> None:
        if self.head is not None:
            self.head -= count
            if self.head < 0:
                raise OSError(errno.EMSGSIZE, f"the head of the answer has more than {_HEAD_BYTES} bytes")


_NOW: Final = _Now()


@contextmanager
def bounded_answer(seconds: float, stopping: threading.Event | None) -> Iterator[None]:
    """What this thread receives in the block is one answer: `seconds` from its first wait on. While it sends one it may
    read what it sends from another."""
    before = (_NOW.seconds, _NOW.deadline, _NOW.head, _NOW.stopping)
    _NOW.seconds, _NOW.deadline, _NOW.head, _NOW.stopping = seconds, None, _HEAD_BYTES, stopping
    try:
        yield
    finally:
        _NOW.seconds, _NOW.deadline, _NOW.head, _NOW.stopping = before


def head_is_read() -> None:
    """The body has a bound of its own."""
    _NOW.head = None


class _Patient(_Socket):
    """For both kinds of sockets."""

    def recv_into(self, buffer: Buffer, nbytes: int | None = None, flags: int = 0) -> int:
        if _NOW.deadline is None and _NOW.seconds is not None:
            _NOW.deadline = time.monotonic() + _NOW.seconds
        receive = super().recv_into
        count = self._waited(lambda: receive(buffer, nbytes or 0, flags))
        _NOW.came(count)
        return count

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        send, view = super().send, memoryview(data).cast("B")
        while view:
            piece = view[:_SEND_BYTES]
            view = view[self._waited(partial(send, piece, flags)) :]

    def _waited(self, call: Callable[[], int]) -> int:
        patience: float | None = self.gettimeout()
        if patience is None or _NOW.seconds is None:
            return call()
        stalled = time.monotonic() + patience
        try:
            while True:
                _NOW.look()
                self.settimeout(min(_LOOK_SECONDS, patience))
                try:
                    return call()
                except TimeoutError:
                    if time.monotonic() >= stalled:
                        raise
        finally:
            self.settimeout(patience)


class PatientSocket(_Patient, socket.socket):
    """Without TLS."""


class PatientTls(_Patient, ssl.SSLSocket):
    """With TLS, by `SSLContext.sslsocket_class`."""


class PatientConnection(HTTPConnection):
    """A connection whose sockets are patient, from the connect on."""

    def _new_conn(self) -> socket.socket:
        return connected(self, self.host.strip("[]"), self.port)


class PatientTlsConnection(HTTPSConnection):
    """The same with TLS."""

    def _new_conn(self) -> socket.socket:
        return connected(self, self.host.strip("[]"), self.port)


def connected(connection: HTTPConnection, host: str, port: int | None) -> socket.socket:
    """A socket to `host` with what `connection` wants of one. Raises urllib3's errors, as its own does."""
    error = None
    try:
        addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as unknown:
        reason = unknown if isinstance(unknown, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, f"{unknown}")
        raise NameResolutionError(host, connection, reason) from unknown
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else None
    for family, kind, protocol, _name, address in addresses:
        own = PatientSocket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                own.setsockopt(*option)
            _connect(own, address, timeout)
        except OSError as failed:
            own.close()
            error = failed
        else:
            own.settimeout(timeout)
            return own
    if isinstance(error, TimeoutError):
        raise ConnectTimeoutError(connection, f"Connection to {host} timed out. (connect timeout={timeout})") from error
    raise NewConnectionError(connection, f"Failed to establish a new connection: {error}") from error


def _connect(own: socket.socket, address: tuple[Any, ...], timeout: float | None) -> None:
    own.settimeout(0)
    number = own.connect_ex(address)
    if number == errno.EINPROGRESS:
        poll, end = select.poll(), None if timeout is None else time.monotonic() + timeout
        poll.register(own, select.POLLOUT)
        while not poll.poll(_LOOK_SECONDS * 1000):
            _NOW.look()
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        number = own.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))
