"""Who may reach a server: its address, its certificate, the users of an htpasswd file. Raises UsageError."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import re
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.registry.server import Login

_LIBRARIES: Final = ("libcrypt.so.1", "libcrypt.so.2")  # libxcrypt; Debian and Fedora have it always
_BCRYPT: Final = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_MAX_BYTES: Final = 1024 * 1024


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--addr: expected HOST:PORT such as 127.0.0.1:5000 or 0.0.0.0:5000, got {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def check_exposure(host: str, *, tls: bool, login: bool) -> None:
    """A registry that others can reach wants both; what is pushed through it is a product."""
    lacking = [*([] if tls else ["--tls-cert and --tls-key"]), *([] if login else ["--htpasswd"])]
    if lacking and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines: give {' and '.join(lacking)}",
            hint="or --insecure, where everybody in that network may pull, in the clear",
        )


def read_certificate(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("--tls-cert and --tls-key go together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{cert} and {key} are no certificate and its key", detail=f"{error}") from error
    return context


def read_htpasswd(path: Path) -> Login:
    """The users of a file that `htpasswd -B` made; any other kind of hash is refused, as registries do."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--htpasswd: {path} can't be read", detail=f"{error}") from error
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not user or not colon or not _BCRYPT.fullmatch(hashed):
            raise UsageError(f"{path}:{number}: expected USER:HASH with a bcrypt hash", hint="htpasswd -B makes them")
        users[user] = hashed
    if not users:
        raise UsageError(f"--htpasswd: {path} has no users")
    return _Users(users=users, crypt=_Crypt.load())


@dataclass(slots=True)
class _Crypt:
    """The C library's crypt(3): Python has no bcrypt of its own, and its `crypt` module ends with 3.12."""

    library: ctypes.CDLL
    lock: threading.Lock

    @classmethod
    def load(cls) -> _Crypt:
        for name in _LIBRARIES:
            with suppress(OSError):
                library = ctypes.CDLL(name)
                library.crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
                library.crypt.restype = ctypes.c_char_p
                return cls(library, threading.Lock())
        raise UsageError("--htpasswd needs libcrypt, which is not installed", hint="apt-get install libcrypt1")

    def is_right(self, password: bytes, hashed: str) -> bool:
        with self.lock:  # it has one static buffer
            found = self.library.crypt(password, hashed.encode("ascii"))
        return isinstance(found, bytes) and found == hashed.encode("ascii")


class _Users:
    """bcrypt is slow on purpose, and a pull has hundreds of requests: who was right once is remembered, as a hash."""

    def __init__(self, users: dict[str, str], crypt: _Crypt) -> None:
        self.users = users
        self.crypt = crypt
        self.known: set[bytes] = set()

    def __call__(self, header: str) -> bool:
        seen = hashlib.sha256(header.encode()).digest()
        if seen in self.known:
            return True
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
            hashed = self.users.get(user.decode())
        except ValueError:
            return False
        right = bool(colon) and hashed is not None and b"\0" not in password and self.crypt.is_right(password, hashed)
        if right:
            self.known.add(seen)
        return right
