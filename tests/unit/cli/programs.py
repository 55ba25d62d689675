"""What the programs of a transcript do when they are started: as much of skopeo, tar and umoci as regwrap looks at."""

import http.client
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.builders import Image
from tests.bundles import Part, filled, member
from tests.fakes import Answer, Argv

_RECORD_BYTES = 128 * 512


def curl(*, changed: Mapping[bytes, bytes] | None = None) -> Answer:
    """curl, which fetches what it reads of, and gives other bytes for some."""
    gives = changed or {}

    def fetch(stdin: bytes) -> bytes:
        return b"".join(_fetched(_options(section), gives) for section in stdin.decode().split("next\n"))

    return Answer(when=("curl", "--disable"), reads=fetch, repeats=True)


def _options(section: str) -> dict[str, str]:
    pairs = (line.partition(" = ") for line in section.splitlines())
    return {name: value.strip('"') for name, _equals, value in pairs}


def _fetched(options: dict[str, str], gives: Mapping[bytes, bytes]) -> bytes:
    address, header = urlsplit(options["url"]), options.get("header", "").partition(": ")
    with closing(http.client.HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request("GET", address.path, headers={header[0]: header[2]} if header[0] else {})
        answer = connection.getresponse()
        data = answer.read()
    failed = answer.status >= 400
    if not failed:
        with Path(options["output"]).open("wb") as pipe, suppress(BrokenPipeError):
            pipe.write(gives.get(data, data)[int(options.get("continue-at", "0")) :])
    outcome = {
        "filename_effective": options["output"],
        "response_code": answer.status,
        "exitcode": 22 if failed else 0,
        "errormsg": f"The requested URL returned error: {answer.status}" if failed else None,
        "url_effective": options["url"],
    }
    return f"{json.dumps(outcome)} \n".encode()


def skopeo_copy(*images: Image) -> Answer:
    """skopeo copy, into a layout, of a manifest that one of these images has."""
    data = {sha256(part).hexdigest(): part for image in images for part in (*image.manifests, *image.blobs)}

    def copy(argv: Argv) -> None:
        shared = Path(argv[argv.index("--dest-shared-blob-dir") + 1], "sha256")
        shared.mkdir(parents=True, exist_ok=True)
        top = argv[-2].rpartition(":")[2]
        manifest = json.loads(data[top])
        for digest in (top, *(part["digest"][7:] for part in (manifest["config"], *manifest["layers"]))):
            (shared / digest).write_bytes(data[digest])

    return Answer(when=_is("skopeo", "copy"), effect=copy, repeats=True)


def tar() -> Answer:
    """tar --create, with the members of its -C and -T options."""

    def pack(argv: Argv) -> None:
        members, directory = b"", Path()
        for option, value in pairwise(argv):
            if option == "-C":
                directory = Path(value)
            elif option == "-T":
                names = [os.fsdecode(name) for name in Path(value).read_bytes().split(b"\0") if name]
                members += b"".join(member(Part(name, (directory / name).read_bytes())) for name in names)
        Path(argv[argv.index("--file") + 1]).write_bytes(filled(members + bytes(1024), _RECORD_BYTES))

    return Answer(when=("tar", "--create"), effect=pack, repeats=True)


def umoci_init() -> Answer:
    def init(argv: Argv) -> None:
        layout = Path(argv[-1])
        (layout / "blobs/sha256").mkdir(parents=True)
        (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (layout / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')

    return Answer(when=("umoci", "init"), effect=init)


def umoci_config(**instead: object) -> Answer:
    """umoci config: a new config, with `instead` in it, a new manifest, a new entry in the index."""

    def configure(argv: Argv) -> None:
        layout = Path(argv[argv.index("--image") + 1].rpartition(":")[0])
        index = json.loads((layout / "index.json").read_bytes())
        manifest = _blob(layout, index["manifests"][0])
        config = _blob(layout, manifest["config"])
        options = list(pairwise(argv))
        config["config"]["Env"] = [value for option, value in options if option == "--config.env"]
        config["config"]["ExposedPorts"] = {value: {} for option, value in options if option == "--config.exposedports"}
        config["config"] |= instead
        manifest["config"] |= _put(layout, config)
        index["manifests"][0] |= _put(layout, manifest)
        (layout / "index.json").write_text(json.dumps(index))

    return Answer(when=("umoci", "config"), effect=configure)


def versions() -> Answer:
    """Every program says that it is new enough."""
    return Answer(when=lambda argv: argv[1:] == ("--version",), stdout=b"version 99.1\n", repeats=True)


def overlay_trial() -> Answer:
    """The script of tools/overlay.py, where everything works."""
    return Answer(when=("unshare",), stdout=b"mounted\nwritten\nmarked\n")


def _is(program: str, command: str) -> Callable[[Argv], bool]:
    return lambda argv: argv[0] == program and command in argv


def _blob(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes())
    return document


def _put(layout: Path, document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
