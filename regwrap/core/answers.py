"""What a registry means by an answer that is no yes, whoever heard it: our own requests, or skopeo in its words.

`registry/answers.py` reads it from HTTP, `tools/skopeo.py` from skopeo's texts. What to do stands here, once.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from regwrap.core.errors import FULL_DISK_HINT


class Meaning(Enum):
    """The kinds of answers that differ in what to do next."""

    ABSENT = auto()
    BUSY = auto()
    DENIED = auto()
    EXPIRED = auto()
    FIXED_TAG = auto()
    FULL_DISK = auto()
    LOGIN_PAGE = auto()
    NO_CLIENT_CERTIFICATE = auto()
    NO_PROJECT = auto()
    OTHER = auto()
    PLAIN_HTTP = auto()
    READ_ONLY = auto()
    TOO_LARGE = auto()
    UNAUTHORIZED = auto()
    UNAVAILABLE = auto()
    UNKNOWN_CA = auto()
    UPLOAD_LOST = auto()
    WRONG_NAME = auto()

    @property
    def hint(self) -> str:
        """What to do; empty where the answer's own words have to do."""
        return _HINTS.get(self, "")

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self in _TRANSIENT


_HINTS: Final = {
    Meaning.DENIED: "the account has no permission for this: check its rights in the registry",
    Meaning.EXPIRED: "the certificate's dates do not include this machine's time: renew it, or set the clock",
    Meaning.FIXED_TAG: "the tag is immutable in the registry: use another tag",
    Meaning.FULL_DISK: FULL_DISK_HINT,
    Meaning.LOGIN_PAGE: "check the address: a proxy or login page answered instead of the registry",
    Meaning.NO_CLIENT_CERTIFICATE: "put a client's certificate into cert_dir, as NAME.cert and NAME.key",
    Meaning.NO_PROJECT: "create the project in Harbor (a name starts with one), or push with --create-projects",
    Meaning.PLAIN_HTTP: "set url: http://… or tls_verify: false: the registry speaks plain HTTP",
    Meaning.READ_ONLY: "the registry is read-only: make it writable",
    Meaning.TOO_LARGE: "raise the body limit of the proxy in front of the registry",
    Meaning.UNKNOWN_CA: "give the registry's CA with cert_dir (a directory with ca.crt), or tls_verify: false",
    Meaning.WRONG_NAME: "use a name that is in the registry's certificate, or have it made for this one as well",
    Meaning.UNAUTHORIZED: "check the registry's authfile (skopeo login)",
}
_TRANSIENT: Final = {
    Meaning.BUSY,
    Meaning.FULL_DISK,
    Meaning.LOGIN_PAGE,
    Meaning.UNAVAILABLE,
    Meaning.UPLOAD_LOST,
}
