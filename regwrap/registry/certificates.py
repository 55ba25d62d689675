"""Which certificates our own requests trust and show: what skopeo does with the same files and variables.

SSL_CERT_FILE stands for the machine's file of CAs, SSL_CERT_DIR for its directories (Go's crypto/x509, root_unix.go);
a registry's cert_dir has more CAs as *.crt, and a client's certificate as *.cert with *.key (containers-certs.d(5));
without one the machine's directory for that host counts.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.answers import Meaning
from regwrap.core.errors import ToolError
from regwrap.core.model import Digest
from regwrap.core.writing import read_file, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from urllib3 import BaseHTTPResponse

    from regwrap.core.location import Registry

_VERSION: Final = 0xA0  # tags of DER: the version comes first, where there is one
_UTC_TIME: Final = 0x17
_BUNDLES: Final = (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/certs/ca-bundle.crt"))
_MACHINE: Final = (Path("/etc/ssl/certs"), Path("/etc/pki/tls/certs"))
# what OpenSSL says of a certificate (x509_txt.c, ssl's own words for a name)
_SAID: Final = (
    ("certificate has expired", Meaning.EXPIRED),
    ("not yet valid", Meaning.EXPIRED),
    ("mismatch", Meaning.WRONG_NAME),
    ("doesn't match", Meaning.WRONG_NAME),
    ("not valid for", Meaning.WRONG_NAME),
    ("CERTIFICATE_VERIFY_FAILED", Meaning.UNKNOWN_CA),
    ("CERTIFICATE_REQUIRED", Meaning.NO_CLIENT_CERTIFICATE),
    ("ALERT", Meaning.NO_CLIENT_CERTIFICATE),
    ("WRONG_VERSION_NUMBER", Meaning.PLAIN_HTTP),
    ("RECORD_LAYER_FAILURE", Meaning.PLAIN_HTTP),
)


@dataclass(frozen=True, slots=True)
class Trust:
    """`context` is for connections; `useless` names files that have nothing to trust in them, and do not count."""

    context: ssl.SSLContext
    useless: tuple[str, ...]


def certificates_of(registry: Registry, etc: Path = Path("/etc")) -> Path | None:
    """The directory with certificates for the registry alone: the configured one, else the one that skopeo finds."""
    if registry.cert_dir is not None:
        return registry.cert_dir
    places = (etc / name / "certs.d" / registry.host for name in ("containers", "docker"))
    return next((place for place in places if place.is_dir()), None)


def trust_of(registry: Registry, variables: Mapping[str, str], etc: Path = Path("/etc")) -> Trust:
    """Raises ToolError for a client's certificate that cannot be used: without it nothing can be asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Python 3.13 refuses a CA without a key usage (RFC 5280, 4.2.1.3), as openssl makes it and companies have it; curl,
    # docker and skopeo take it
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    own = certificates_of(registry, etc)
    useless = tuple(_useless_files(context, registry, own, variables))
    if own is not None:
        _show_client(context, own)
    return Trust(context, useless)


def curl_options(registry: Registry, variables: Mapping[str, str], place: Path) -> tuple[tuple[str, str], ...]:
    """The same as options of curl, which takes one file of CAs: it is made in the private directory `place`, unless the
    machine's CAs are all there is. Raises ToolError."""
    trust_of(registry, variables)  # for what it refuses
    directory = certificates_of(registry)
    pairs = sorted(directory.glob("*.cert"))[-1:] if directory else []
    client = tuple(option for path in pairs
                   for option in (("cert", f"{path}"), ("key", f"{path.with_suffix('.key')}")))  # fmt: skip
    if not registry.tls_verify:
        return (("insecure", ""), ("proxy-insecure", ""), *client)
    own = sorted(directory.glob("*.crt")) if directory else []
    return (*_authorities(registry, own, variables, place), *client)


def led_options(registry: Registry, variables: Mapping[str, str], place: Path) -> tuple[tuple[str, str], ...]:
    """For curl, where a registry without TLS leads to a server that has it: a bucket behind one on loopback."""
    return _authorities(registry, [], variables, place)


def _authorities(
    registry: Registry, own: Sequence[Path], variables: Mapping[str, str], place: Path
) -> tuple[tuple[str, str], ...]:
    if not (own or variables.get("SSL_CERT_FILE") or variables.get("SSL_CERT_DIR")):
        return ()
    bundle = place / f"ca-{Digest.of(registry.host.encode()).hex[:16]}.pem"
    directories = (Path(name) for name in variables.get("SSL_CERT_DIR", "").split(":") if name)
    files = (_machine_file(variables), *(path for directory in directories for path in _files(directory)), *own)
    write_file(bundle, b"\n".join(read_file(path) for path in files if _is_loaded(_empty(), path)))
    return (("cacert", f"{bundle}"), ("proxy-cacert", f"{bundle}"))


def _machine_file(variables: Mapping[str, str]) -> Path:
    if (named := variables.get("SSL_CERT_FILE")) and _is_loaded(_empty(), Path(named)):
        return Path(named)
    own = ssl.get_default_verify_paths().cafile
    return next((path for path in (*_BUNDLES, *([Path(own)] if own else ())) if path.is_file()), _BUNDLES[0])


def _empty() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def meaning_of_tls(said: str) -> Meaning:
    """What a connection that TLS did not make failed of."""
    return next((meaning for words, meaning in _SAID if words in said), Meaning.OTHER)


def _useless_files(
    context: ssl.SSLContext, registry: Registry, own: Path | None, variables: Mapping[str, str]
) -> Iterator[str]:
    """Trust all there is; yields what has nothing to trust."""
    if not registry.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return
    if not (file := variables.get("SSL_CERT_FILE")):
        context.set_default_verify_paths()
    elif not _is_loaded(context, Path(file)):
        yield f"SSL_CERT_FILE: {file} has no certificate in PEM form, and does not count"
    _trust_directories(context, variables.get("SSL_CERT_DIR", ""))
    for path in sorted(own.glob("*.crt")) if own else ():
        if not _is_loaded(context, path):
            yield f"{path} has no certificate in PEM form, and does not count"


def _trust_directories(context: ssl.SSLContext, names: str) -> None:
    for path in (path for name in names.split(":") if name for path in _files(Path(name))):
        _is_loaded(context, path)
    for directory in () if names else filter(Path.is_dir, _MACHINE):
        # by the names that OpenSSL looks for: to read all of them takes as long as twenty requests
        context.load_verify_locations(capath=directory)


def _is_loaded(context: ssl.SSLContext, path: Path) -> bool:
    try:
        context.load_verify_locations(cafile=path)
    except OSError:  # ssl's errors are among them
        return False
    return True


def _files(directory: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in directory.iterdir() if path.is_file())
    return []


def _show_client(context: ssl.SSLContext, directory: Path) -> None:
    for path in sorted((*directory.glob("*.cert"), *directory.glob("*.key"))):
        other = path.with_suffix(".key" if path.suffix == ".cert" else ".cert")
        if not other.exists():
            raise ToolError(
                f"{path} cannot be used: {other.name} is not beside it",
                hint=Meaning.HALF_PAIR.hint,
            )
        if path.suffix == ".cert":
            _load_pair(context, path, other)


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password="")  # or a terminal would be asked
    except OSError as error:
        raise ToolError(
            f"{certificate} and {key.name} cannot be used as a client's certificate",
            detail=f"{error}",
            hint="give both in PEM form, the key without a password",
        ) from error


def shown_with(answer: BaseHTTPResponse) -> bytes:
    """The certificate that came with an answer, which is not read, in DER form; empty without TLS."""
    own = getattr(getattr(answer, "connection", None), "sock", None)
    shown = own.getpeercert(binary_form=True) if isinstance(own, ssl.SSLSocket) else None
    answer.close()
    return shown or b""


def end_of(der: bytes) -> datetime:
    """Until when a certificate is valid (RFC 5280, 4.1: notAfter). Raises ValueError."""
    (_, certificate), *_rest = _parts(der)
    (_, signed), *_rest = _parts(certificate)
    fields = [value for tag, value in _parts(signed) if tag != _VERSION]
    if len(fields) < 4:
        raise ValueError("it is no certificate")
    _not_before, (tag, text) = _parts(fields[3])  # after the serial number, the algorithm and the issuer
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values in a DER sequence, with their tags."""
    at = 0
    while at + 1 < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length > 127:
            count = length - 128
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        yield tag, data[at : at + length]
        at += length
