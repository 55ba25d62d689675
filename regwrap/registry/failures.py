"""What it means that no answer came: urllib3's errors, in the terms of `core/answers.py`."""

from __future__ import annotations

import errno
import re
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Final

from urllib3.exceptions import NameResolutionError, ProtocolError, ProxyError, SSLError

from regwrap.core.answers import Meaning
from regwrap.registry.certificates import meaning_of_tls
from regwrap.registry.patience import EndlessAnswerError

if TYPE_CHECKING:
    from urllib3.exceptions import HTTPError

# the kernel's words, and urllib3's for its own limits
_SAID: Final = (
    ("refused", Meaning.NOBODY_THERE),
    ("reset by peer", Meaning.CUT),
    ("Broken pipe", Meaning.CUT),
    ("No route to host", Meaning.NO_ROUTE),
    ("unreachable", Meaning.NO_ROUTE),
    ("timed out", Meaning.SILENT),
    ("not complete after", Meaning.SILENT),
)


def meaning_of_failure(error: HTTPError) -> Meaning:
    text = f"{error}"
    if isinstance(error, SSLError):
        return meaning_of_tls(text)
    if isinstance(error, ProxyError):
        return Meaning.PROXY_LOGIN if " 407 " in text else Meaning.PROXY
    if isinstance(error, NameResolutionError):
        return Meaning.NO_NAME
    if _is_unreadable(error):
        return Meaning.UNREADABLE
    other = Meaning.CUT if isinstance(error, ProtocolError) else Meaning.OTHER
    return next((meaning for words, meaning in _SAID if words in text), other)


def _is_unreadable(error: HTTPError) -> bool:
    """Whether somebody answered, but nothing that could be read."""
    said = error.args[-1] if error.args else None
    if isinstance(said, OSError):  # as one that went away without an answer is, whatever else it is
        return said.errno == errno.EMSGSIZE
    return isinstance(said, HTTPException) and not isinstance(said, IncompleteRead)


def endlessness(error: Exception) -> str:
    """What to say of an answer that came too slowly to wait for its end; empty for another failure."""
    cause = error.__cause__
    return f"{cause.strerror}" if isinstance(cause, EndlessAnswerError) else ""


def reason_of_failure(error: HTTPError) -> str:
    """The innermost reason: urllib3 wraps what the kernel said into two sentences about itself."""
    return re.sub(r"^.*(Connection|Connect|Pool)[A-Za-z]*\(.*?\): ", "", str(error))
