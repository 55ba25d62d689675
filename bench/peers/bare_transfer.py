"""What a transfer of a list only has to do: each unique blob once, large ones first, the links and the manifests.

    python3 bare_transfer.py copy SOURCE_HOST:PORT IMAGES.LIST DEST_HOST:PORT    # GET piped into PUT
    python3 bare_transfer.py push BUNDLE.tar IMAGES.LIST DEST_HOST:PORT          # sendfile from the tar into PUT
    python3 bare_transfer.py pull SOURCE_HOST:PORT IMAGES.LIST DIRECTORY         # curl into files, synced, then hashed

Eight at a time, into registries that are empty. Nothing is compared, repeated or proved, and a fault ends it.
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path
from urllib.parse import urlsplit

AT_A_TIME = 8
BUFFER = 1 << 18
TYPES = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
here = threading.local()


def connection(host: str) -> HTTPConnection:
    """This thread's, which stays open."""
    known: dict[str, HTTPConnection] = here.__dict__.setdefault("connections", {})
    if host not in known:
        known[host] = HTTPConnection(host)
    return known[host]


def ask(
    host: str, method: str, path: str, expected: int, body: bytes = b"", **headers: str
) -> tuple[HTTPMessage, bytes]:
    length = {} if method == "GET" else {"Content-Length": f"{len(body)}"}
    connection(host).request(method, path, body, length | headers)
    answer = connection(host).getresponse()
    data = answer.read()
    if answer.status != expected:
        sys.exit(f"{method} {path}: {answer.status} {data[:200]!r}")
    return answer.headers, data


@dataclass
class Work:
    """`blobs` by digest: bytes and the repositories that need it; `manifests` of each image: repository, name, type and
    bytes, children first."""

    blobs: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    manifests: list[list[tuple[str, str, str, bytes]]] = field(default_factory=list)

    def add(self, repository: str, manifests: list[tuple[str, str, str, bytes]]) -> None:
        self.manifests.append(manifests)
        for _, _, _, raw in manifests:
            document = json.loads(raw)
            for one in ([document["config"]] if "config" in document else []) + document.get("layers", []):
                repositories = self.blobs.setdefault(one["digest"], (one["size"], []))[1]
                if repository not in repositories:
                    repositories.append(repository)

    def by_size(self) -> Iterator[tuple[str, int, list[str]]]:
        for digest, (size, repositories) in sorted(self.blobs.items(), key=lambda item: -item[1][0]):
            yield digest, size, repositories


def read_images(images: Path, fetch: Callable[[str, str], bytes]) -> Work:
    def read(line: str) -> tuple[str, list[tuple[str, str, str, bytes]]]:
        repository, _, tag = line.rpartition(":")
        return repository, list(descend(repository, tag))

    def descend(repository: str, name: str) -> Iterator[tuple[str, str, str, bytes]]:
        raw = fetch(repository, name)
        document = json.loads(raw)
        for child in document.get("manifests", []):
            yield from descend(repository, child["digest"])
        yield repository, name, document["mediaType"], raw

    work = Work()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for repository, manifests in pool.map(read, images.read_text().split()):
            work.add(repository, manifests)
    return work


def from_registry(host: str) -> Callable[[str, str], bytes]:
    return lambda repository, name: ask(host, "GET", f"/v2/{repository}/manifests/{name}", 200, Accept=TYPES)[1]


def into_registry(work: Work, dest: str, send: Callable[[HTTPConnection, str, str], None]) -> None:
    """`send` writes the bytes of a blob, which a repository has at the source, into an open request."""

    def upload(digest: str, size: int, repositories: list[str]) -> None:
        first, *others = repositories
        headers, _ = ask(dest, "POST", f"/v2/{first}/blobs/uploads/", 202)
        place = urlsplit(headers["Location"])
        out = connection(dest)
        out.putrequest("PUT", f"{place.path}?{place.query}&digest={digest}")
        out.putheader("Content-Length", f"{size}")
        out.putheader("Content-Type", "application/octet-stream")
        out.endheaders()
        send(out, first, digest)
        answer = out.getresponse()
        answer.read()
        if answer.status != 201:
            sys.exit(f"PUT of {digest}: {answer.status}")
        for other in others:
            ask(dest, "POST", f"/v2/{other}/blobs/uploads/?mount={digest}&from={first}", 201)

    def finish(manifests: list[tuple[str, str, str, bytes]]) -> None:
        for repository, name, kind, raw in manifests:
            ask(dest, "PUT", f"/v2/{repository}/manifests/{name}", 201, raw, **{"Content-Type": kind})

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda blob: upload(*blob), work.by_size()))
        list(pool.map(finish, work.manifests))


def copy(source: str, images: Path, dest: str) -> None:
    def send(out: HTTPConnection, repository: str, digest: str) -> None:
        back = connection(source)
        back.request("GET", f"/v2/{repository}/blobs/{digest}")
        answer, buffer = back.getresponse(), memoryview(here.__dict__.setdefault("buffer", bytearray(BUFFER)))
        while count := answer.readinto(buffer):
            out.sock.sendall(buffer[:count])

    into_registry(read_images(images, from_registry(source)), dest, send)


def push(bundle: Path, images: Path, dest: str) -> None:
    file = bundle.open("rb")
    with tarfile.open(bundle, "r:") as tar:
        members = [member for member in tar if member.isreg()]
        found = {Path(x.name).parent.name: (x.offset_data, x.size) for x in members if x.name.endswith("/data")}
        links = ((x.name, tar.extractfile(x)) for x in members if x.name.endswith("/current/link"))
        tags = {name: link.read().decode() for name, link in links if link}

    def fetch(repository: str, name: str) -> bytes:
        link = f"docker/registry/v2/repositories/{repository}/_manifests/tags/{name}/current/link"
        offset, size = found[tags.get(link, name).removeprefix("sha256:")]
        return os.pread(file.fileno(), size, offset)

    def send(out: HTTPConnection, _repository: str, digest: str) -> None:
        offset, left = found[digest.removeprefix("sha256:")]
        while left:
            count = os.sendfile(out.sock.fileno(), file.fileno(), offset, left)
            offset, left = offset + count, left - count

    into_registry(read_images(images, fetch), dest, send)


def pull(source: str, images: Path, directory: Path) -> None:
    work = read_images(images, from_registry(source))
    wanted = "".join(
        f'url="http://{source}/v2/{repositories[0]}/blobs/{digest}"\noutput="{directory / digest}"\n'
        for digest, _, repositories in work.by_size()
    )
    options = ("--disable", "--silent", "--fail", "--parallel", "--parallel-max", f"{AT_A_TIME}")
    subprocess.run(["curl", *options, "--config", "-"], input=wanted.encode(), check=True)
    subprocess.run(["sync", "--file-system", f"{directory}"], check=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda digest: hashed(directory / digest), work.blobs))
    if found != list(work.blobs):
        sys.exit("a blob is not what its digest says")


def hashed(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


if __name__ == "__main__":
    what, first, images, last = sys.argv[1:]
    if what == "copy":
        copy(first, Path(images), last)
    elif what == "push":
        push(Path(first), Path(images), last)
    else:
        pull(first, Path(images), Path(last))
