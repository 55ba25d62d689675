"""Inputs that nobody makes by mistake, each with a name. A `Make` lays one into a case."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from regwrap.bundle.contents import parse_contents
from regwrap.core.manifest import OCI_INDEX, OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import put
from tests.bundles import BLOCK, Part, header, member, packed, parts_of, summed
from tests.torture.ground import Ground, Place

Make = Callable[[Ground, Place], None]


# --- bundles


def _parts(ground: Ground) -> list[Part]:
    raw = json_of(ground)
    return parts_of(parse_contents(raw), ground.templates / "full")


def json_of(ground: Ground, bundle: str = "bundle.tar") -> bytes:
    data = (ground.templates / bundle).read_bytes()
    return data[BLOCK : BLOCK + int(data[124:135], 8)]


def _bytes(change: Callable[[bytes], bytes]) -> Make:
    def make(ground: Ground, place: Place) -> None:
        (place.root / "bundle.tar").write_bytes(change((ground.templates / "bundle.tar").read_bytes()))

    return make


def with_json(change: Callable[[bytes], bytes]) -> Make:
    def make(ground: Ground, place: Place) -> None:
        first, *others = _parts(ground)
        (place.root / "bundle.tar").write_bytes(packed([Part(first.name, change(first.data)), *others]))

    return make


def _with_document(change: Callable[[Any], object]) -> Make:
    def changed(raw: bytes) -> bytes:
        document = json.loads(raw)
        change(document)
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"

    return with_json(changed)


def _with_member(part: Part, position: int = 1) -> Make:
    def make(ground: Ground, place: Place) -> None:
        parts = _parts(ground)
        (place.root / "bundle.tar").write_bytes(packed([*parts[:position], part, *parts[position:]]))

    return make


def _raw_member(data: bytes) -> Make:
    def make(ground: Ground, place: Place) -> None:
        first, *others = _parts(ground)
        (place.root / "bundle.tar").write_bytes(member(first) + data + packed(others))

    return make


def _linked(name: bytes, target: bytes, kind: bytes) -> bytes:
    block = bytearray(header(name, 0, kind))
    block[157 : 157 + len(target)] = target
    return summed(bytes(block))


def _set(*path: object, value: object) -> Make:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return _with_document(change)


_NAMES: Final = {
    "up": "../../etc/evil",
    "absolute": "/tmp/evil",
    "inner-up": "docker/../../evil",
    "dot": "./bundle.json",
    "empty-part": "docker//evil",
    "newline": "a\nb",
    "escape": "\x1b[31mevil",
    "long": "x/" * 2000 + "x",
    "blanks": "   ",
    "regwrap": ".regwrap/lock",
    "proc": "/proc/self/mem",
    "unicode": "docker/\u202egpj.exe",
    "same-again": "bundle.json",
    "blob-up": "docker/registry/v2/blobs/sha256/../../../../../evil",
}
_VALUES: Final[dict[str, object]] = {
    "null": None,
    "true": True,
    "minus": -1,
    "float": 1.5,
    "huge": 10**400,
    "big": 2**63,
    "text": "x",
    "long-text": "x" * 100_000,
    "list": [],
    "mapping": {},
    "deep": [[[[[[[[]]]]]]]],
    "zero-byte": "a\0b",
    "up": "../../evil",
    "surrogate": "\ud800",
}
_PLACES: Final[dict[str, tuple[object, ...]]] = {
    "format": ("format",),
    "images": ("images",),
    "tag": ("images", 0, "tag"),
    "digest": ("images", 0, "digest"),
    "repository": ("repositories", 0, "name"),
    "layers": ("repositories", 0, "layers"),
    "size": ("blobs", 0, "size"),
}
_BUNDLES: Final[dict[str, Make]] = {
    "empty": _bytes(lambda _data: b""),
    "zeros": _bytes(lambda _data: bytes(1 << 20)),
    "one-block": _bytes(lambda data: data[:512]),
    "gzipped": _bytes(gzip.compress),
    "gzip-bomb": _bytes(lambda _data: gzip.compress(bytes(50_000_000))),
    "zip": _bytes(lambda data: b"PK\x03\x04" + data),
    "twice": _bytes(lambda data: data + data),
    "front-garbage": _bytes(lambda data: b"x" * 512 + data),
    "no-end": _bytes(lambda data: data[:-65536]),
    "reversed": _bytes(lambda data: data[::-1]),
    "text": _bytes(lambda _data: b"#!/bin/sh\nrm -rf /\n"),
    "sparse-huge": lambda _ground, place: _sparse(place.root / "bundle.tar", 1 << 40),
    "json-utf16": with_json(lambda raw: raw.decode().encode("utf-16")),
    "json-bom": with_json(lambda raw: b"\xef\xbb\xbf" + raw),
    "json-deep": with_json(lambda _raw: b"[" * 500_000),
    "json-deep-mapping": with_json(lambda _raw: b'{"a":' * 200_000),
    "json-doubled-key": with_json(lambda raw: raw.replace(b'"format"', b'"format": 1,\n "format"', 1)),
    "json-nan": with_json(lambda raw: raw.replace(b'"format": 1', b'"format": NaN', 1)),
    "json-long-number": with_json(lambda raw: raw.replace(b'"format": 1', b'"format": 1' + b"0" * 100_000, 1)),
    "json-latin1": with_json(lambda raw: raw.replace(b"app", b"\xe4pp")),
    "json-zero": with_json(lambda raw: raw + b"\0"),
    "json-minified": with_json(lambda raw: json.dumps(json.loads(raw)).encode()),
    "json-many-images": _with_document(lambda doc: doc["images"].extend(doc["images"] * 20_000)),
    "json-many-blobs": _with_document(lambda doc: doc["blobs"].extend(doc["blobs"] * 5_000)),
    "size-base256": _raw_member(
        summed(header(b"x", 0)[:124] + b"\x80" + bytes(3) + b"\xff" * 8 + header(b"x", 0)[136:])
    ),
    "size-negative": _raw_member(summed(header(b"x", 0)[:124] + b"\xff" * 12 + header(b"x", 0)[136:])),
    "size-octal-junk": _raw_member(header(b"x", 0, b"0", b"9999999999x\0")),
    "size-huge": _raw_member(header(b"x", 0, b"0", b"77777777777\0")),
    "checksum-wrong": _raw_member(b"x" + header(b"xx", 0)[1:]),
    "symlink": _raw_member(_linked(b"docker", b"/etc", b"2")),
    "hard-link": _raw_member(_linked(b"docker/x", b"/etc/passwd", b"1")),
    "fifo": _raw_member(header(b"fifo", 0, b"6")),
    "device": _raw_member(header(b"null", 0, b"3")),
    "block-device": _raw_member(header(b"sda", 0, b"4")),
    "directory": _raw_member(header(b"docker/", 0, b"5")),
    "contiguous": _raw_member(header(b"x", 0, b"7")),
    "sparse": _raw_member(header(b"x", 0, b"S")),
    "pax": _raw_member(header(b"x", 0, b"x")),
    "pax-global": _raw_member(header(b"x", 0, b"g")),
    "long-link-name": _raw_member(header(b"././@LongLink", 10, b"K") + bytes(512)),
    "long-name-twice": _raw_member((header(b"././@LongLink", 200, b"L") + b"x" * 199 + bytes(313)) * 2),
    "long-name-huge": _raw_member(header(b"././@LongLink", 1 << 30, b"L")),
    "volume": _raw_member(header(b"label", 0, b"V")),
    **{f"member-{name}": _with_member(Part(path, b"evil")) for name, path in _NAMES.items()},
    **{f"last-{name}": _with_member(Part(path, b"evil"), 10**6) for name, path in list(_NAMES.items())[:5]},
    **{
        f"json-{where}-{name}": _set(*path, value=value)
        for where, path in _PLACES.items()
        for name, value in _VALUES.items()
        if not (where == "format" and name == "true")
    },
}


def _sparse(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


# --- lists


def _list(data: bytes) -> Make:
    def make(_ground: Ground, place: Place) -> None:
        put(place.root / "hostile.list", data)

    return make


_LISTS: Final[dict[str, Make]] = {
    name: _list(data)
    for name, data in {
        "empty": b"",
        "zeros": bytes(10_000),
        "binary": bytes(range(256)) * 40,
        "bom": b"\xef\xbb\xbfapp:v1\n",
        "utf16": "app:v1\n".encode("utf-16"),
        "latin1": b"\xe4pp:v1\n",
        "crlf": b"app:v1\r\nlib/tool:1\r\n",
        "cr": b"app:v1\rlib/tool:1\r",
        "no-end": b"app:v1",
        "long-line": b"a" * 5_000_000 + b"\n",
        "many-lines": b"app:v1\n" * 100_000,
        "many-comments": b"# x\n" * 300_000,
        "twice": b"app:v1\napp:v1\n",
        "two-to-one": b"app:v1 => x:1\napp:v2 => x:1\n",
        "to-itself": b"app:v1 => app:v1\n",
        "arrow": b"=>\n",
        "arrows": b"a:1 => b:1 => c:1\n",
        "empty-dest": b"app:v1 =>\n",
        "up": b"../../etc:1\n",
        "absolute": b"/etc/passwd\n",
        "url": b"http://127.0.0.1/app:v1\n",
        "option": b"--help\n",
        "dash": b"-rf:1\n",
        "command": b"$(reboot):1\n",
        "quote": b"'app:v1\n",
        "escape": b"\x1b[2Japp:v1\n",
        "rtl": "\u202eapp:v1\n".encode(),
        "zero": b"app\0:v1\n",
        "digest-short": b"app@sha256:abc\n",
        "digest-upper": b"app@sha256:" + b"A" * 64 + b"\n",
        "sha512": b"app@sha512:" + b"a" * 128 + b"\n",
        "tag-long": b"app:" + b"t" * 200 + b"\n",
        "name-long": b"a/" * 500 + b"a:1\n",
        "upper": b"APP:V1\n",
        "port": b"host:99999/app:v1\n",
        "port-junk": b"host:x/app:v1\n",
        "ipv6": b"[::1]:5000/app:v1\n",
        "user": b"user:secret@host/app:v1\n",
        "platform-junk": b"app:v1 platform=x\n",
        "platform-many": b"app:v1 platform=" + b"linux/amd64," * 5_000 + b"\n",
        "platform-twice": b"app:v1 platform=linux/amd64 platform=linux/arm64\n",
        "unknown-key": b"app:v1 evil=1\n",
        "no-tag": b"app\n",
        "colon": b":\n",
        "at": b"@\n",
        "blanks": b" \t \n" * 50_000,
        "nbsp": "app:v1\u00a0\n".encode(),
        "yaml": b"app: {v1: [}\n",
        "yaml-bomb": b"a: &a [x,x,x,x]\nb: &b [*a,*a,*a,*a]\n" * 1
        + b"".join(f"{chr(99 + n)}: &{chr(99 + n)} [{','.join([f'*{chr(98 + n)}'] * 9)}]\n".encode() for n in range(9)),
        "yaml-deep": b"{" * 100_000,
        "yaml-python": b"!!python/object/apply:os.system ['touch canary']\n",
        "yaml-merge": b"<<: *x\n",
        "json": b'{"images": [' * 50_000,
        "html": b"<html><body>login</body></html>\n",
        "skopeo-sync-junk": b"host.example.com:\n  images: 3\n",
        "skopeo-sync-deep": b"host.example.com:\n  images:\n    a: [[[[1]]]]\n",
        "only-comment": b"# nothing\n",
        "unicode-digits": "app:v\u0661\n".encode(),
        "surrogate": b"\xed\xa0\x80:1\n",
    }.items()
}


# --- configurations


def _config(text: object) -> Make:
    assert isinstance(text, str | bytes)
    data = text.encode() if isinstance(text, str) else text

    def make(_ground: Ground, place: Place) -> None:
        put(place.root / "hostile.yaml", data)

    return make


_CONFIGS: Final[dict[str, Make]] = {
    name: _config(text)
    for name, text in {
        "empty": "",
        "zeros": bytes(1000),
        "binary": bytes(range(256)),
        "text": "hello",
        "number": "1",
        "list": "[1, 2]",
        "null": "~",
        "deep": "{a: " * 5_000,
        "deep-list": "[" * 100_000,
        "unknown": "evil: 1\n",
        "doubled": "jobs: 1\njobs: 2\n",
        "jobs-huge": "jobs: 1" + "0" * 10_000,
        "jobs-text": "jobs: many",
        "jobs-minus": "jobs: -1",
        "jobs-float": "jobs: 1.5",
        "jobs-octal": "jobs: 0o17",
        "jobs-true": "jobs: true",
        "jobs-sexagesimal": "jobs: 1:30",
        "jobs-inf": "jobs: .inf",
        "retry-nan": "retry: {wait: .nan}",
        "retry-text": "retry: 3",
        "retry-huge": "retry: {attempts: 99999999999999999999}",
        "python": "archive: !!python/object/apply:os.system ['touch canary']",
        "python-name": "jobs: !!python/name:os.system",
        "bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)),
        "cycle": "registries: &a {x: *a}",
        "self": "archive: &a [*a]",
        "merge": "<<: {jobs: 3}",
        "binary-tag": "archive: !!binary aGVsbG8=",
        "timestamp": "archive: 2001-01-01",
        "tab": "jobs:\t3\n\tx: 1",
        "two-documents": "jobs: 1\n---\njobs: 2\n",
        "bom": b"\xef\xbb\xbfjobs: 3\n",
        "utf16": "jobs: 3\n".encode("utf-16"),
        "latin1": b"archive: \xe4\n",
        "surrogate": b"archive: \xed\xa0\x80\n",
        "path-zero": 'archive: "./a\\0b"',
        "path-long": "archive: ./" + "x" * 100_000,
        "path-home": "archive: ~root/x",
        "archive-url": "archive: file:///etc",
        "archive-list": "archive: [a]",
        "source-empty": 'source: ""',
        "source-self": "source: .",
        "registry-none": "registries: {a: {}}",
        "registry-text": "registries: a",
        "registry-url": "registries: {a: {url: 'ftp://x'}}",
        "registry-password": "registries: {a: {url: 'http://robot:s3cr3t-of-the-robot@127.0.0.1:1'}}",
        "registry-name": 'registries: {"../x": {url: 127.0.0.1:1}}',
        "authfile-proc": "registries: {a: {url: 127.0.0.1:1, authfile: /proc/self/mem}}",
        "authfile-zero": "registries: {a: {url: 127.0.0.1:1, authfile: /dev/zero}}",
        "cert-dir": "registries: {a: {url: 127.0.0.1:1, cert_dir: /dev/null}}",
        "rewrite": "rewrite: {prefix: ../../x}",
        "rewrite-list": "rewrite: []",
        "rule": "images: [{match: '**'}]",
        "rule-regex": "images: [{match: '" + "*" * 5_000 + "a'}]",
        "rule-semver": "images: [{match: 'app:*', semver: '" + ">=1 " * 5_000 + "'}]",
        "rule-newest": "images: [{match: 'app:*', newest: -1}]",
        "many-registries": "registries:\n" + "".join(f"  r{n}: {{url: 'h{n}:1'}}\n" for n in range(5_000)),
        "alias-many": "a: &a 1\nb: [" + "*a," * 50_000 + "]",
        "long-key": "x" * 1_000_000 + ": 1",
        "question": "? [a]\n: 1\n",
        "timeouts": "timeouts: {stall: 0}",
        "timeouts-text": "timeouts: {lock: soon}",
    }.items()
}


# --- storages


def _manifest(document: object, *, raw: bytes | None = None) -> Make:
    """The tag app:v1 points to this manifest, whose bytes have the right digest."""

    def make(_ground: Ground, place: Place) -> None:
        data = raw if raw is not None else json.dumps(document).encode()
        digest, root = Digest.of(data), place.root / "full"
        put(root / layout.blob_path(digest), data)
        put(root / layout.revision_link("app", digest), f"{digest}".encode())
        put(root / layout.tag_link("app", "v1"), f"{digest}".encode())
        put(root / layout.tag_index_link("app", "v1", digest), f"{digest}".encode())

    return make


def _descriptor(**changes: object) -> dict[str, object]:
    return {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{'a' * 64}",
        "size": 3,
        **changes,
    }


def _image(**changes: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _descriptor(), "layers": [], **changes}


def _index(children: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}


def _nested(depth: int) -> Make:
    """An index in an index in an index."""

    def make(ground: Ground, place: Place) -> None:
        raw = json.dumps(_index([])).encode()
        for _ in range(depth):
            digest = Digest.of(raw)
            put(place.root / "full" / layout.blob_path(digest), raw)
            put(place.root / "full" / layout.revision_link("app", digest), f"{digest}".encode())
            raw = json.dumps(_index([_descriptor(mediaType=OCI_INDEX, digest=f"{digest}", size=len(raw))])).encode()
        _manifest(None, raw=raw)(ground, place)

    return make


def _linked_to(target: str, name: str) -> Make:
    def make(_ground: Ground, place: Place) -> None:
        path = place.root / "full" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return make


_STORAGES: Final[dict[str, Make]] = {
    **{
        f"manifest-{name}": _manifest(None, raw=raw)
        for name, raw in {
            "empty": b"",
            "zero": b"\0",
            "null": b"null",
            "number": b"1",
            "list": b"[]",
            "mapping": b"{}",
            "deep": b"[" * 200_000,
            "deep-mapping": b'{"a":' * 200_000,
            "html": b"<html>",
            "bom": b"\xef\xbb\xbf{}",
            "utf16": "{}".encode("utf-16"),
            "large": b" " * 5_000_000 + b"{}",
            "doubled": b'{"schemaVersion": 2, "schemaVersion": 1}',
            "nan": b'{"schemaVersion": NaN}',
            "long-number": b'{"schemaVersion": ' + b"9" * 100_000 + b"}",
            "latin1": b'{"a": "\xe4"}',
        }.items()
    },
    **{
        f"image-{name}": _manifest(document)
        for name, document in {
            "schema1": _image(schemaVersion=1),
            "no-type": {k: v for k, v in _image().items() if k != "mediaType"},
            "wrong-type": _image(mediaType="text/html"),
            "config-none": _image(config=None),
            "config-text": _image(config="x"),
            "layers-none": _image(layers=None),
            "layers-text": _image(layers="x"),
            "layer-number": _image(layers=[1]),
            "size-minus": _image(config=_descriptor(size=-1)),
            "size-huge": _image(config=_descriptor(size=10**30)),
            "size-text": _image(config=_descriptor(size="3")),
            "size-float": _image(config=_descriptor(size=3.5)),
            "digest-up": _image(config=_descriptor(digest="sha256:../../../../etc/passwd")),
            "digest-none": _image(config=_descriptor(digest=None)),
            "digest-sha512": _image(config=_descriptor(digest="sha512:" + "a" * 128)),
            "digest-upper": _image(config=_descriptor(digest="sha256:" + "A" * 64)),
            "many-layers": _image(layers=[_descriptor()] * 20_000),
            "urls": _image(layers=[_descriptor(urls=["http://127.0.0.1:1/x"])]),
            "foreign": _image(
                layers=[_descriptor(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]
            ),
            "subject": _image(subject=_descriptor()),
            "surrogate": _image(annotations={"a": "\ud800"}),
        }.items()
    },
    **{
        f"index-{name}": _manifest(_index(children))
        for name, children in {
            "none": [],
            "null": [None],
            "number": [3],
            "same-twice": [_descriptor(mediaType=OCI_MANIFEST)] * 2,
            "many": [_descriptor(mediaType=OCI_MANIFEST)] * 20_000,
            "platform-text": [_descriptor(mediaType=OCI_MANIFEST, platform="x")],
            "platform-list": [_descriptor(mediaType=OCI_MANIFEST, platform=[])],
            "platform-odd": [_descriptor(mediaType=OCI_MANIFEST, platform={"os": 1})],
            "platform-up": [_descriptor(mediaType=OCI_MANIFEST, platform={"os": "../..", "architecture": "\0"})],
        }.items()
    },
    "nested-10": _nested(10),
    "nested-1000": _nested(1000),
    "root-link": _linked_to("/etc", "docker/registry/v2/repositories/evil"),
    "repositories-link": _linked_to("/", "docker/registry/v2/repositories/lib"),
    "blobs-link": _linked_to("/proc", "docker/registry/v2/blobs/sha256/zz"),
    "tags-link": _linked_to("/etc/passwd", "docker/registry/v2/repositories/app/_manifests/tags/v1/current/link"),
    "loop-link": _linked_to("../app", "docker/registry/v2/repositories/app/loop"),
}


# --- trees to import


def _tree_file(name: str, data: bytes) -> Make:
    def make(_ground: Ground, place: Place) -> None:
        for path in sorted((place.root / "tree").rglob("manifest.json"))[:1]:
            target = path.parent / name
            target.write_bytes(data)

    return make


_TREES: Final[dict[str, Make]] = {
    **{
        f"manifest-{name}": _tree_file("manifest.json", data)
        for name, data in {
            "empty": b"",
            "zero": b"\0" * 100,
            "null": b"null",
            "list": b"[]",
            "deep": b"[" * 300_000,
            "html": b"<html>",
            "large": b" " * 6_000_000,
            "image": json.dumps(_image()).encode(),
            "index": json.dumps(_index([_descriptor()])).encode(),
            "up": json.dumps(_image(config=_descriptor(digest="sha256:../../x"))).encode(),
        }.items()
    },
    "version": _tree_file("version", b"Directory Transport Version: 99\n"),
    "extra": _tree_file("evil", b"x"),
}
NAMED: Final[dict[str, dict[str, Make]]] = {
    "bundle": _BUNDLES,
    "list": _LISTS,
    "config": _CONFIGS,
    "storage": _STORAGES,
    "index": _TREES,
}
