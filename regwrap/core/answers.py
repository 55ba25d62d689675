"""What it means that a registry says no, or says nothing, whoever heard it: our own requests, or skopeo in its words.

`registry/answers.py` reads it from HTTP, `registry/failures.py` from connections, `tools/answers.py` from skopeo's
texts. One sentence on what happened and one on what to do stand here, once; the page of troubleshooting has this table.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from regwrap.core.errors import FULL_DISK_HINT, OUR_DISK_HINT


class Meaning(Enum):
    """The kinds of failures that differ in what to do next."""

    ABSENT = auto()
    BLOCKED = auto()
    BUSY = auto()
    CUT = auto()
    DENIED = auto()
    EXPIRED = auto()
    FIXED_TAG = auto()
    FULL_DISK = auto()
    HALF_PAIR = auto()
    LED_ASTRAY = auto()
    LOGIN_PAGE = auto()
    NOBODY_THERE = auto()
    NO_BRACKETS = auto()
    NO_CLIENT_CERTIFICATE = auto()
    NO_NAME = auto()
    NO_PROJECT = auto()
    NO_REGISTRY = auto()
    NO_ROUTE = auto()
    OTHER = auto()
    OTHER_BYTES = auto()
    OUR_DISK = auto()
    PLAIN_HTTP = auto()
    PROXY = auto()
    PROXY_LOGIN = auto()
    READ_ONLY = auto()
    SILENT = auto()
    SKOPEOS_LOGIN = auto()
    TOO_LARGE = auto()
    UNAUTHORIZED = auto()
    UNAVAILABLE = auto()
    UNKNOWN_CA = auto()
    UNREADABLE = auto()
    UPLOAD_LOST = auto()
    WRONG_NAME = auto()

    @property
    def happened(self) -> str:
        """What happened; empty where the answer's own words have to do."""
        return CAUSES.get(self, ("", ""))[0]

    @property
    def hint(self) -> str:
        """What to do; empty where the answer's own words have to do."""
        return CAUSES.get(self, ("", ""))[1]

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self in _TRANSIENT

    def message(self, what: str) -> str:
        """`what` could not be done, and why."""
        return f"{what}: {self.happened}" if self.happened else what


# what happened, what to do; in the page's order
CAUSES: Final = {
    Meaning.ABSENT: (
        "not found in the registry",
        "check name and tag; some registries say so to an account that may not read it",
    ),
    Meaning.UNAUTHORIZED: ("the registry requires a valid login", "check the registry's authfile (skopeo login)"),
    Meaning.SKOPEOS_LOGIN: (
        "skopeo cannot log in there, though the login is valid",
        "the registry's /v2/ has to ask for a login, and to offer Bearer before Basic; or push these images elsewhere",
    ),
    Meaning.DENIED: (
        "the account is not allowed to do this",
        "the account has no permission for this: check its rights in the registry",
    ),
    Meaning.NO_PROJECT: (
        "Harbor has no such project",
        "create the project in Harbor (a name starts with one), or push with --create-projects",
    ),
    Meaning.FIXED_TAG: ("the tag is immutable in the registry", "use another tag"),
    Meaning.READ_ONLY: ("the registry is read-only", "make it writable"),
    Meaning.TOO_LARGE: (
        "the upload is too large for what is in front of the registry",
        "raise the body limit of the proxy in front of the registry (nginx: client_max_body_size)",
    ),
    Meaning.UPLOAD_LOST: (
        "the registry has lost the upload",
        "rerun; if it stays so, its instances do not share their storage, or its disk is full",
    ),
    Meaning.BUSY: (
        "the registry wants fewer requests",
        "rerun later; requests_per_second and max_connections of the registry bound what it is asked",
    ),
    Meaning.FULL_DISK: ("internal error in the registry", FULL_DISK_HINT),
    Meaning.UNAVAILABLE: (
        "the registry is not available",
        "rerun when it is; look at its log, and at that of the proxy in front of it",
    ),
    Meaning.NOBODY_THERE: (
        "nothing listens there, the connection was refused",
        "check host and port, and whether the registry runs",
    ),
    Meaning.CUT: (
        "the connection was cut",
        "look at the registry's log, and at firewalls and proxies in between",
    ),
    Meaning.SILENT: (
        "no answer came in time",
        "check firewalls and proxies in between; timeouts: in the configuration says how long is waited",
    ),
    Meaning.NO_ROUTE: ("no route to the host", "check this machine's network, and whether a proxy is needed"),
    Meaning.NO_NAME: (
        "the host name cannot be resolved",
        "check the registry's name in the list and in the configuration, and this machine's DNS",
    ),
    Meaning.PROXY: (
        "the proxy cannot reach the host",
        "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY; regwrap doctor shows what counts",
    ),
    Meaning.PROXY_LOGIN: (
        "the proxy requires a valid login",
        "put user and password into HTTPS_PROXY and HTTP_PROXY: http://USER:PASSWORD@HOST:PORT",
    ),
    Meaning.LOGIN_PAGE: (
        "a web page answered in the registry's place",
        "check the address: a proxy or login page answered instead of the registry",
    ),
    Meaning.NO_BRACKETS: (
        "this skopeo reads no IPv6 address in brackets",
        "give the address a name (DNS, /etc/hosts) and use that, or a newer skopeo",
    ),
    Meaning.NO_REGISTRY: ("the server there is not a registry", "check host and port"),
    Meaning.UNREADABLE: (
        "it is not HTTP, or its head has no end",
        "check host and port: what listens there is not a registry",
    ),
    Meaning.LED_ASTRAY: (
        "the address came from the registry's answer",
        "check the address that the registry gives for itself, its storage and its token server",
    ),
    Meaning.EXPIRED: (
        "the certificate has expired, or is not valid yet",
        "the certificate's dates do not include this machine's time: renew it, or set the clock",
    ),
    Meaning.UNKNOWN_CA: (
        "the certificate is signed by a CA that this machine does not trust",
        "give the registry's CA with cert_dir (a directory with ca.crt), or tls_verify: false",
    ),
    Meaning.WRONG_NAME: (
        "the certificate is for another name",
        "use a name that is in the registry's certificate, or have it made for this one as well",
    ),
    Meaning.NO_CLIENT_CERTIFICATE: (
        "the registry wants a client's certificate",
        "put a client's certificate into cert_dir, as NAME.cert and NAME.key",
    ),
    Meaning.HALF_PAIR: (
        "half of a client's certificate is missing",
        "a client's certificate is NAME.cert with NAME.key; a CA is NAME.crt",
    ),
    Meaning.PLAIN_HTTP: (
        "the registry speaks plain HTTP",
        "set url: http://… or tls_verify: false: the registry speaks plain HTTP",
    ),
    Meaning.OTHER_BYTES: (
        "wrong bytes came",
        "check the registry and proxies in between: the bytes do not match the digest",
    ),
    Meaning.OUR_DISK: ("the disk here is full", OUR_DISK_HINT),
    Meaning.BLOCKED: (
        "the registry is blocked on this machine",
        "unblock the registry in the machine's /etc/containers/registries.conf",
    ),
}
_TRANSIENT: Final = {
    Meaning.BUSY,
    Meaning.FULL_DISK,
    Meaning.LOGIN_PAGE,
    Meaning.UNAVAILABLE,
    Meaning.UPLOAD_LOST,
}
