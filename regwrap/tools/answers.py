"""What is matched of other programs' words: one table for skopeo, and the few words of the others.

An exit code decides nothing: skopeo 1.9 ends with 1 where 1.18 ends with 2. `seen` are the versions with a recorded
transcript that has the words (tests/transcripts); tests make each condition again with the skopeo that is installed.
Where it is empty the words are the kernel's or Go's, which no version changes, in a condition that no test can make.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Flag, auto
from typing import Final

from regwrap.core.answers import Meaning


class Says(Flag):
    """What words say beyond that something failed. ABSENT: the image, or its repository, is what is missing.
    REFUSED: the login is, or that there is none."""

    FINAL = 0
    ABSENT = auto()
    TRANSIENT = auto()
    BUSY = auto()
    UNREACHABLE = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Words:
    """A pattern, the versions of skopeo in which it was seen, and what it means. `tells` has what to do."""

    pattern: str
    seen: tuple[str, ...]
    means: Says = Says.FINAL
    tells: Meaning = Meaning.OTHER


_D12: Final = "1.9.3"
_D13: Final = "1.18.0"
_BOTH: Final = (_D12, _D13)
_STATUS: Final = r"(received unexpected HTTP status:|invalid status code from registry|StatusCode:) "
_PING: Final = "pinging container registry "  # a 404 to it means that no registry is there at all

# the first that tells something counts, and all meanings
SKOPEO: Final = (
    Words("manifest unknown", _BOTH, Says.ABSENT, Meaning.ABSENT),
    Words("name unknown", _BOTH, Says.ABSENT, Meaning.ABSENT),
    Words("repository name not known to registry", (_D13,), Says.ABSENT, Meaning.ABSENT),
    Words("reading manifest .*StatusCode: 404", _BOTH, Says.ABSENT, Meaning.ABSENT),
    Words(
        "fetching tags list: (StatusCode:|invalid status code from registry) 404", _BOTH, Says.ABSENT, Meaning.ABSENT
    ),
    Words(
        rf"{_PING}.*(StatusCode:|from registry) 404\b",
        _BOTH,
        tells=Meaning.NO_REGISTRY,
    ),
    Words(
        r"project .*not found",
        _BOTH,
        tells=Meaning.NO_PROJECT,
    ),
    Words("unauthorized", _BOTH, Says.REFUSED, Meaning.UNAUTHORIZED),
    Words("authentication required", _BOTH, Says.REFUSED, Meaning.UNAUTHORIZED),
    Words("invalid username/password", _BOTH, Says.REFUSED, Meaning.UNAUTHORIZED),
    Words(r"(: |^)(requested access to the resource is )?denied\b", _BOTH, tells=Meaning.DENIED),
    Words("no such host", _BOTH, Says.UNREACHABLE, Meaning.NO_NAME),
    Words(
        "server gave HTTP response to HTTPS client",
        _BOTH,
        tells=Meaning.PLAIN_HTTP,
    ),
    Words("certificate has expired or is not yet valid", (), tells=Meaning.EXPIRED),
    Words("x509: (certificate is|cannot validate|.*doesn't contain any IP SANs)", (), tells=Meaning.WRONG_NAME),
    Words("x509:", _BOTH, tells=Meaning.UNKNOWN_CA),
    Words("tls: (bad certificate|certificate required|handshake failure)", (), tells=Meaning.NO_CLIENT_CERTIFICATE),
    Words("first record does not look like a TLS handshake", (), tells=Meaning.LED_ASTRAY),
    Words("(missing key|missing client certificate) .* for", (), tells=Meaning.HALF_PAIR),
    Words("no space left on device", _BOTH, tells=Meaning.OUR_DISK),
    Words("disk quota exceeded", (), tells=Meaning.OUR_DISK),
    Words("is blocked in", _BOTH, tells=Meaning.BLOCKED),
    Words("invalid character '<'", _BOTH, tells=Meaning.LOGIN_PAGE),
    Words("Digest did not match", _BOTH, Says.TRANSIENT, Meaning.OTHER_BYTES),
    Words(
        "(status|StatusCode|from registry|destination repository [^ ]+):? 500",
        _BOTH,
        tells=Meaning.FULL_DISK,
    ),
    Words("Proxy Authentication Required", (), tells=Meaning.PROXY_LOGIN),
    Words("proxyconnect tcp|socks connect tcp", (), tells=Meaning.PROXY),
    Words("toomanyrequests", _BOTH, Says.TRANSIENT | Says.BUSY, Meaning.BUSY),
    Words("too many requests to registry", (_D12,), Says.TRANSIENT | Says.BUSY, Meaning.BUSY),
    Words(rf"{_STATUS}(408|429)", _BOTH, Says.TRANSIENT, Meaning.BUSY),
    Words(rf"{_STATUS}5\d\d", _BOTH, Says.TRANSIENT, Meaning.UNAVAILABLE),
    Words(rf"{_STATUS}413", (), tells=Meaning.TOO_LARGE),
    Words(rf"{_STATUS}403", _BOTH, tells=Meaning.DENIED),
    Words(rf"{_STATUS}404", _BOTH, tells=Meaning.ABSENT),
    Words(r"\b(429|503)\b", _BOTH, Says.BUSY),
    Words("failed to read from destination repository", (_D12,), Says.TRANSIENT),
    Words("connection refused", _BOTH, Says.TRANSIENT, Meaning.NOBODY_THERE),
    Words("connect: connection refused", _BOTH, Says.UNREACHABLE),
    Words("connection reset by peer", _BOTH, Says.TRANSIENT, Meaning.CUT),
    Words("unexpected EOF", _BOTH, Says.TRANSIENT, Meaning.CUT),
    Words(": EOF", _BOTH, Says.TRANSIENT, Meaning.CUT),
    Words("broken pipe", (), Says.TRANSIENT, Meaning.CUT),
    Words("use of closed network connection", (), Says.TRANSIENT, Meaning.CUT),
    Words("context deadline exceeded", _BOTH, Says.TRANSIENT, Meaning.SILENT),
    Words("TLS handshake timeout", _BOTH, Says.TRANSIENT, Meaning.SILENT),
    Words("i/o timeout", (), Says.TRANSIENT, Meaning.SILENT),
    Words("dial tcp [^ ]*: i/o timeout", (), Says.UNREACHABLE),
    Words("no route to host", _BOTH, Says.TRANSIENT | Says.UNREACHABLE, Meaning.NO_ROUTE),
    Words("network is unreachable", _BOTH, Says.TRANSIENT | Says.UNREACHABLE, Meaning.NO_ROUTE),
    Words("server misbehaving", _BOTH, Says.TRANSIENT | Says.UNREACHABLE, Meaning.NO_NAME),
    Words("(?i)temporary failure in name resolution", _BOTH, Says.TRANSIENT | Says.UNREACHABLE, Meaning.NO_NAME),
    Words("digest invalid", _BOTH, Says.TRANSIENT, Meaning.UPLOAD_LOST),
    Words("manifest blob unknown", _BOTH, Says.TRANSIENT, Meaning.UPLOAD_LOST),
    Words("blob upload (unknown|invalid)", _BOTH, Says.TRANSIENT, Meaning.UPLOAD_LOST),
    # what is left of a refusal, by a registry that others write to
    Words("Manifest list must be converted", _BOTH, Says.TRANSIENT),
)

# GNU tar 1.34 and 1.35: all that it says of a disk that became full within a record; docker-registry 2.8 and 3.1
TAR_SHORT_WRITE: Final = "Wrote only "
TAR_READ_ERROR: Final = ": Read error at byte "  # zeros are in the place of what it could not read
REGISTRY_LISTENS: Final = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
REGISTRY_ERROR: Final = "level=error"


def meaning(said: str) -> Says:
    """All that skopeo's words mean."""
    found = Says.FINAL
    for words in SKOPEO:
        if re.search(words.pattern, said):
            found |= words.means
    return found & ~Says.ABSENT if _PING in said else found


def cause_of(said: str) -> Meaning:
    """What skopeo's words tell of what happened and what to do; OTHER where nothing is known."""
    known = (words.tells for words in SKOPEO if words.tells is not Meaning.OTHER and re.search(words.pattern, said))
    return next(known, Meaning.OTHER)
