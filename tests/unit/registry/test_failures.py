"""What it means that no answer came, by the words of the kernel and of the libraries."""

import errno
import os
from http.client import BadStatusLine, IncompleteRead
from socket import EAI_NONAME, gaierror

import pytest
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)

from regwrap.core.answers import Meaning
from regwrap.registry.failures import endlessness, meaning_of_failure, reason_of_failure
from regwrap.registry.patience import EndlessAnswerError

CONNECTION = HTTPConnection("r.example")


def unconnected(number: int) -> NewConnectionError:
    said = f"[Errno {number}] {os.strerror(number)}"
    return NewConnectionError(CONNECTION, f"Failed to establish a new connection: {said}")


def aborted(error: Exception) -> ProtocolError:
    return ProtocolError(f"Connection broken: {error!r}", error)


def tunnel(status: str) -> ProxyError:
    return ProxyError("Cannot connect to proxy.", OSError(f"Tunnel connection failed: {status}"))


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (unconnected(errno.ECONNREFUSED), Meaning.NOBODY_THERE),
        (unconnected(errno.EHOSTUNREACH), Meaning.NO_ROUTE),
        (unconnected(errno.ENETUNREACH), Meaning.NO_ROUTE),
        (unconnected(errno.ETIMEDOUT), Meaning.SILENT),
        (unconnected(errno.EACCES), Meaning.OTHER),
        (NameResolutionError("r.example", CONNECTION, gaierror(EAI_NONAME, "unknown")), Meaning.NO_NAME),
        (SSLError("certificate verify failed: certificate has expired"), Meaning.EXPIRED),
        (SSLError("timed out"), Meaning.OTHER),
        (tunnel("407 Proxy Authentication Required"), Meaning.PROXY_LOGIN),
        (tunnel("403 Forbidden"), Meaning.PROXY),
        (aborted(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))), Meaning.CUT),
        (aborted(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))), Meaning.CUT),
        (aborted(IncompleteRead(b"", 5)), Meaning.CUT),
        (aborted(BadStatusLine("SSH-2.0-OpenSSH_9.2")), Meaning.UNREADABLE),
        (aborted(OSError(errno.EMSGSIZE, "the head of the answer has more than 5 bytes")), Meaning.UNREADABLE),
        (aborted(OSError(errno.EIO, os.strerror(errno.EIO))), Meaning.CUT),
        (HTTPError("the answer was not complete after 5 s"), Meaning.SILENT),
        (HTTPError("odd"), Meaning.OTHER),
        (HTTPError(), Meaning.OTHER),
    ],
)
def test_each_failure_has_its_meaning(error: HTTPError, meaning: Meaning) -> None:
    assert meaning_of_failure(error) is meaning


def test_only_an_answer_that_came_too_slowly_is_endless() -> None:
    slow = HTTPError("x")
    slow.__cause__ = EndlessAnswerError(errno.ETIMEDOUT, "the answer was not complete after 5 s")
    assert endlessness(slow) == "the answer was not complete after 5 s"
    late = HTTPError("x")
    late.__cause__ = TimeoutError(errno.ETIMEDOUT, "timed out")
    assert endlessness(late) == endlessness(HTTPError("x")) == ""


def test_the_reason_is_what_the_kernel_said() -> None:
    refused = f"Failed to establish a new connection: [Errno {errno.ECONNREFUSED}] Connection refused"
    assert reason_of_failure(unconnected(errno.ECONNREFUSED)) == refused
    assert reason_of_failure(HTTPError("odd")) == "odd"
