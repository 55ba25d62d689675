"""A private CA with a certificate for 127.0.0.1, by openssl, and a user with a constant bcrypt hash.

The CA has no key usage and the certificate names no authority key, as plain openssl makes them and companies have them.
"""

import base64
import json
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOGIN = "ci:secret"
HTPASSWD = "ci:$2y$04$XXUB2dh75RjTsWfig2vOOeL0W.FvulEnva4D2Q79k2aFuRnVzrWQe\n"
_SETTINGS = """
[req]
distinguished_name = names
x509_extensions = ca
[names]
[ca]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
[server]
subjectAltName = IP:127.0.0.1, IP:::1, DNS:localhost, DNS:registry-1.docker.io, DNS:reg.example
authorityKeyIdentifier = none
[expired]
database = {place}/index.txt
serial = {place}/serial
new_certs_dir = {place}
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


@dataclass(frozen=True)
class Certificate:
    """`directory` has the CA as `ca.crt` and nothing else: what --cert-dir wants."""

    directory: Path
    cert: Path
    key: Path


def make_certificate(place: Path) -> Certificate:
    directory = place / "certs.d"
    directory.mkdir(parents=True)
    ca, ca_key, cert, key = directory / "ca.crt", place / "ca.key", place / "server.crt", place / "server.key"
    settings = place / "openssl.cnf"
    settings.write_text(_SETTINGS.format(place=place))
    new = ["openssl", "req", "-config", settings, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = place / "server.csr"
    for command in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=tests CA", "-keyout", ca_key, "-out", ca],
        [*new, "-subj", "/CN=localhost", "-keyout", key, "-out", request],
        ["openssl", "x509", "-req", "-days", "2", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial",
         "-CAserial", place / "serial", "-extfile", settings, "-extensions", "server", "-out", cert],
    ):  # fmt: skip
        subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return Certificate(directory, cert, key)


def make_expired(place: Path, certificate: Certificate) -> Path:
    """A certificate of the same CA and key that expired on 2020-02-01."""
    (place / "index.txt").touch()
    expired, settings = place / "expired.crt", place / "openssl.cnf"
    command = [
        "openssl", "ca", "-batch", "-notext", "-config", settings, "-name", "expired", "-extensions", "server",
        "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-rand_serial",
        "-cert", certificate.directory / "ca.crt", "-keyfile", place / "ca.key", "-in", place / "server.csr",
        "-out", expired,
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return expired


def served_by(certificate: Path, key: Path, clients: Path | None = None) -> ssl.SSLContext:
    """A server's side of TLS; with `clients`, only for those that show a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if clients:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def write_authfile(path: Path, host: str, login: str) -> Path:
    path.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(login.encode()).decode()}}}))
    return path
