"""Who may reach a server: its address, its certificate, the users of an htpasswd file. Raises UsageError."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.registry.server import Login

_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_PASSWORD_BYTES: Final = 72  # bcrypt looks at no more; the library refuses longer ones
_MAX_BYTES: Final = 1024 * 1024
_MAX_ADDRESSES: Final = 10_000


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
    missing = [*([] if tls else ["--tls-cert and --tls-key"]), *([] if login else ["--htpasswd"])]
    if missing and not is_loopback(host):
        raise UsageError(
            f"{host} is reachable from other machines: give {' and '.join(missing)}",
            hint="or give --insecure: everybody in that network may pull, unencrypted",
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
    except OSError as error:  # as an SSLError is
        raise UsageError(f"{cert} and {key} are not a certificate and its key", detail=f"{error}") from error
    return context


def read_htpasswd(path: Path) -> Login:
    """The users of a file that `htpasswd -B` made; any other kind of hash is refused, as registries do."""
    if find_spec("bcrypt") is None:
        raise UsageError(
            "--htpasswd needs bcrypt, which is not installed here",
            hint="apt-get install python3-bcrypt: regwrap.pyz holds Python code alone, and bcrypt is compiled",
        )
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--htpasswd: {path} cannot be read", detail=f"{error}") from error
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not user or not colon or not _BCRYPT.fullmatch(hashed):
            raise UsageError(
                f"{path}:{number}: expected USER:HASH with a bcrypt hash", hint="create them with htpasswd -B"
            )
        users[user] = hashed
    if not users:
        raise UsageError(f"--htpasswd: {path} has no users")
    return _Users(users)


class _Users:
    """bcrypt is slow on purpose, and a pull has hundreds of requests: who was right once is remembered, as a hash.

    Wrong passwords of one address are looked at one after the other, so that they leave room for others. A wrong one
    takes the same time for a known and an unknown user, so that nobody finds out who has an account.
    """

    def __init__(self, users: dict[str, str]) -> None:
        self.users = users
        self.known: set[bytes] = set()
        self.slowest = max(users.values(), key=lambda hashed: hashed[4:6])  # its cost
        self.seconds = 0.0
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __call__(self, header: str, address: str) -> bool:
        seen = hashlib.sha256(header.encode(errors="surrogateescape")).digest()
        if seen in self.known:
            return True
        kind, _, encoded = header.partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
            name = user.decode()
        except ValueError:
            return False
        with self._lock_of(address):
            is_valid = bool(colon) and self._is_valid(name, password)
        if is_valid:
            self.known.add(seen)
        return is_valid

    def _lock_of(self, address: str) -> threading.Lock:
        with self._lock:
            if len(self._locks) >= _MAX_ADDRESSES and address not in self._locks:
                self._locks.clear()
            return self._locks.setdefault(address, threading.Lock())

    def _is_valid(self, user: str, password: bytes) -> bool:
        import bcrypt  # only a server with passwords needs it

        started, hashed = time.monotonic(), self.users.get(user, self.slowest)
        found = bcrypt.checkpw(password[:_PASSWORD_BYTES], hashed.encode("ascii"))
        if found and user in self.users and b"\0" not in password:
            return True
        elapsed = time.monotonic() - started
        if hashed[4:6] == self.slowest[4:6]:
            self.seconds = max(self.seconds, elapsed)
        elif not self.seconds:
            bcrypt.checkpw(b"", self.slowest.encode("ascii"))
            self.seconds = elapsed = time.monotonic() - started
        time.sleep(max(0.0, self.seconds - elapsed))
        return False
