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
    """A pattern, the versions of skopeo in which it was seen, and what it means. `hint`: what to do."""

    pattern: str
    seen: tuple[str, ...]
    means: Says = Says.FINAL
    hint: str = ""


LOGIN_PAGE_HINT: Final = Meaning.LOGIN_PAGE.hint
_NAME_HINT: Final = "check the registry's name, in the list and in the configuration"
ACCOUNT_HINT: Final = Meaning.UNAUTHORIZED.hint
_OTHER_BYTES_HINT: Final = "check the registry and proxies in between: the bytes do not match the digest"
_NOT_ITS_ADDRESS: Final = "check the address that the registry gives for itself: its answer leads to https:// there"
_PAIR_HINT: Final = "a client's certificate is NAME.cert with NAME.key; a CA is NAME.crt"
_OUR_DISK_HINT: Final = "the disk is full: free space and rerun"

_D12: Final = "1.9.3"
_D13: Final = "1.18.0"
_BOTH: Final = (_D12, _D13)
_STATUS: Final = r"(received unexpected HTTP status:|invalid status code from registry|StatusCode:) "
_PING: Final = "pinging container registry "  # a 404 to it means that no registry is there at all

# the first hint counts, and all meanings
SKOPEO: Final = (
    Words("manifest unknown", _BOTH, Says.ABSENT),
    Words("name unknown", _BOTH, Says.ABSENT),
    Words("repository name not known to registry", (_D13,), Says.ABSENT),
    Words("reading manifest .*StatusCode: 404", _BOTH, Says.ABSENT),
    Words("fetching tags list: (StatusCode:|invalid status code from registry) 404", _BOTH, Says.ABSENT),
    Words(
        rf"{_PING}.*(StatusCode:|from registry) 404\b",
        _BOTH,
        hint="check host and port: the server there is not a registry",
    ),
    Words(
        r"project .*not found",
        _BOTH,
        hint=Meaning.NO_PROJECT.hint,
    ),
    Words("unauthorized", _BOTH, Says.REFUSED, ACCOUNT_HINT),
    Words("authentication required", _BOTH, Says.REFUSED, ACCOUNT_HINT),
    Words("invalid username/password", _BOTH, Says.REFUSED, ACCOUNT_HINT),
    Words(r"(: |^)(requested access to the resource is )?denied\b", _BOTH, hint=Meaning.DENIED.hint),
    Words("no such host", _BOTH, Says.UNREACHABLE, _NAME_HINT),
    Words(
        "server gave HTTP response to HTTPS client",
        _BOTH,
        hint=Meaning.PLAIN_HTTP.hint,
    ),
    Words("certificate has expired or is not yet valid", (), hint=Meaning.EXPIRED.hint),
    Words("x509: (certificate is|cannot validate|.*doesn't contain any IP SANs)", (), hint=Meaning.WRONG_NAME.hint),
    Words("x509:", _BOTH, hint=Meaning.UNKNOWN_CA.hint),
    Words("tls: (bad certificate|certificate required|handshake failure)", (), hint=Meaning.NO_CLIENT_CERTIFICATE.hint),
    Words("first record does not look like a TLS handshake", (), hint=_NOT_ITS_ADDRESS),
    Words("(missing key|missing client certificate) .* for", (), hint=_PAIR_HINT),
    Words("no space left on device", _BOTH, hint=_OUR_DISK_HINT),
    Words("disk quota exceeded", (), hint=_OUR_DISK_HINT),
    Words("is blocked in", _BOTH, hint="unblock the registry in the machine's /etc/containers/registries.conf"),
    Words("invalid character '<'", _BOTH, hint=LOGIN_PAGE_HINT),
    Words("corrupted blob", _BOTH, Says.TRANSIENT, _OTHER_BYTES_HINT),
    Words("Digest did not match", _BOTH, Says.TRANSIENT, _OTHER_BYTES_HINT),
    Words(
        "(status|StatusCode|from registry|destination repository [^ ]+):? 500",
        _BOTH,
        hint=Meaning.FULL_DISK.hint,
    ),
    Words("toomanyrequests", _BOTH, Says.TRANSIENT | Says.BUSY),
    Words("too many requests to registry", (_D12,), Says.TRANSIENT | Says.BUSY),
    Words(rf"{_STATUS}(5\d\d|408|429)", _BOTH, Says.TRANSIENT),
    Words(r"\b(429|503)\b", _BOTH, Says.BUSY),
    Words("failed to read from destination repository", (_D12,), Says.TRANSIENT),
    Words("connection refused", _BOTH, Says.TRANSIENT),
    Words("connect: connection refused", _BOTH, Says.UNREACHABLE),
    Words("connection reset by peer", _BOTH, Says.TRANSIENT),
    Words("unexpected EOF", _BOTH, Says.TRANSIENT),
    Words(": EOF", _BOTH, Says.TRANSIENT),
    Words("broken pipe", (), Says.TRANSIENT),
    Words("use of closed network connection", (), Says.TRANSIENT),
    Words("context deadline exceeded", _BOTH, Says.TRANSIENT),
    Words("TLS handshake timeout", _BOTH, Says.TRANSIENT),
    Words("i/o timeout", (), Says.TRANSIENT),
    Words("dial tcp [^ ]*: i/o timeout", (), Says.UNREACHABLE),
    Words("no route to host", _BOTH, Says.TRANSIENT | Says.UNREACHABLE),
    Words("network is unreachable", _BOTH, Says.TRANSIENT | Says.UNREACHABLE),
    Words("server misbehaving", _BOTH, Says.TRANSIENT | Says.UNREACHABLE),
    Words("(?i)temporary failure in name resolution", _BOTH, Says.TRANSIENT | Says.UNREACHABLE),
    Words(r"expected \d+ bytes in blob", _BOTH, Says.TRANSIENT),
    Words("digest invalid", _BOTH, Says.TRANSIENT),
    Words("manifest blob unknown", _BOTH, Says.TRANSIENT),
    Words("blob upload (unknown|invalid)", _BOTH, Says.TRANSIENT),
    # what is left of a refusal, by a registry that others write to
    Words("Manifest list must be converted", _BOTH, Says.TRANSIENT),
)

# of skopeo, where its image proxy is not known; GNU tar 1.34 and 1.35: all that it says of a disk that became full
# within a record; docker-registry 2.8 and 3.1
SKOPEO_HAS_NO_PROXY: Final = "unknown command"
TAR_SHORT_WRITE: Final = "Wrote only "
REGISTRY_LISTENS: Final = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
REGISTRY_ERROR: Final = "level=error"


def meaning(said: str) -> Says:
    """All that skopeo's words mean."""
    found = Says.FINAL
    for words in SKOPEO:
        if re.search(words.pattern, said):
            found |= words.means
    return found & ~Says.ABSENT if _PING in said else found


def hint(said: str) -> str:
    """What to do about skopeo's words; empty where nothing is known."""
    return next((words.hint for words in SKOPEO if words.hint and re.search(words.pattern, said)), "")
