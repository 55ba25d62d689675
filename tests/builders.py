"""Small images and real storages: valid manifests, layers that are real archives, few bytes, always the same ones."""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from regwrap.core.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest, parse_manifest
from regwrap.core.model import Digest
from regwrap.storage import layout

Kind = Literal["oci", "docker"]

_CONFIG_TYPE = {
    "oci": "application/vnd.oci.image.config.v1+json",
    "docker": "application/vnd.docker.container.image.v1+json",
}
_LAYER_TYPE = {
    "oci": "application/vnd.oci.image.layer.v1.tar+gzip",
    "docker": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True)
class Image:
    """`manifests` has children before parents, the top last; `blobs` are configs and layers."""

    manifests: tuple[bytes, ...]
    blobs: tuple[bytes, ...]

    @cached_property
    def top(self) -> Digest:
        return Digest.of(self.manifests[-1])

    @property
    def raw(self) -> bytes:
        return self.manifests[-1]


def make_layer(name: str, content: bytes = b"content\n") -> bytes:
    """A gzipped archive with one file in it."""
    return gzip.compress(_tar(name, content), mtime=0)


def make_config(layers: Sequence[bytes], platform: str = "linux/amd64") -> bytes:
    """A config whose diff ids fit `layers`."""
    os_name, architecture, *variant = platform.split("/")
    document = {
        "architecture": architecture,
        "os": os_name,
        **({"variant": variant[0]} if variant else {}),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(_unpacked(layer))) for layer in layers]},
        "history": [{"created_by": "tests"} for _ in layers],
    }
    return json.dumps(document).encode()


def make_manifest(config: bytes, layers: Sequence[bytes], kind: Kind = "oci") -> bytes:
    return _document(
        OCI_MANIFEST if kind == "oci" else DOCKER_MANIFEST,
        config=_descriptor(_CONFIG_TYPE[kind], config),
        layers=[_descriptor(_LAYER_TYPE[kind], layer) for layer in layers],
    )


def make_index(children: Sequence[bytes], platforms: Sequence[str | None] = (), kind: Kind = "oci") -> bytes:
    """An index of manifests or of indexes. `platforms` may be shorter than `children`; None names no platform."""
    padded = [*platforms, *[None] * (len(children) - len(platforms))]
    return _document(
        OCI_INDEX if kind == "oci" else DOCKER_LIST,
        manifests=[_child(child, platform) for child, platform in zip(children, padded, strict=True)],
    )


def make_image(
    seed: str, *, kind: Kind = "oci", platform: str = "linux/amd64", layers: Sequence[bytes] | None = None
) -> Image:
    """A single image; `seed` makes its only layer, unless `layers` are given."""
    content = [make_layer(seed)] if layers is None else list(layers)
    config = make_config(content, platform)
    return Image(manifests=(make_manifest(config, content, kind),), blobs=(config, *content))


def make_multi_image(
    seed: str, platforms: Sequence[str] = ("linux/amd64", "linux/arm64"), *, kind: Kind = "oci"
) -> Image:
    """An index with one image for each platform; they share one layer."""
    shared = make_layer(f"{seed}-shared")
    images = [
        make_image(seed, kind=kind, platform=platform, layers=[shared, make_layer(f"{seed}-{platform}")])
        for platform in platforms
    ]
    return index_of(images, platforms, kind=kind)


def index_of(images: Sequence[Image], platforms: Sequence[str | None] = (), *, kind: Kind = "oci") -> Image:
    """An image whose index names the tops of `images`, which may be indexes themselves."""
    index = make_index([image.raw for image in images], platforms, kind)
    return Image(
        manifests=(*dict.fromkeys(raw for image in images for raw in image.manifests), index),
        blobs=tuple(dict.fromkeys(blob for image in images for blob in image.blobs)),
    )


def make_storage(root: Path, images: Mapping[str, Image]) -> Path:
    """A storage at `root` with `images` by `REPOSITORY:TAG`, as docker-registry would have written it."""
    (root / layout.REPOSITORIES).mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        repository, _, tag = name.rpartition(":")
        add_untagged(root, repository, image)
        _put(f"{root}/{layout.tag_index_link(repository, tag, image.top)}", f"{image.top}".encode())
        _put(f"{root}/{layout.tag_link(repository, tag)}", f"{image.top}".encode())
    return root


def add_untagged(root: Path, repository: str, image: Image) -> None:
    """All of `image` but the tag."""
    links = [(blob, layout.layer_link) for blob in image.blobs] + [
        (raw, layout.revision_link) for raw in image.manifests
    ]
    for data, link in links:
        digest = Digest.of(data)
        _put(f"{root}/{layout.blob_path(digest)}", data)
        _put(f"{root}/{link(repository, digest)}", f"{digest}".encode())


def put(path: Path, data: bytes) -> Path:
    """Write a file and the directories above it."""
    _put(f"{path}", data)
    return path


def _put(name: str, data: bytes) -> None:
    """By plain calls: the tests write a hundred thousand files."""
    try:
        _write(name, data)
    except FileNotFoundError:
        os.makedirs(name.rpartition("/")[0])
        _write(name, data)


def _write(name: str, data: bytes) -> None:
    with open(name, "wb", buffering=0) as file:
        file.write(data)


# --- damage: each takes the path of a file that is there


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def add_newline(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def fill_with_garbage(path: Path) -> None:
    path.write_bytes(b"g" * layout.LINK_BYTES)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_symlink(path: Path) -> None:
    """The file goes to `NAME.elsewhere`, and a symbolic link to it takes its place."""
    path.rename(path.with_name(f"{path.name}.elsewhere"))
    path.symlink_to(f"{path.name}.elsewhere")


# --- looking at the result, without regwrap's own reading


def snapshot(root: Path) -> dict[str, tuple[str, int, int, str]]:
    """Each path below `root`: mode, owner, group, and the bytes' digest. Equal trees have equal snapshots."""
    return dict(sorted((path[len(f"{root}/") :], _state(path)) for path in _paths(f"{root}")))


def _paths(directory: str) -> Iterator[str]:
    """Each path below, by scandir: crash tests look at thousands of trees."""
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _paths(entry.path)


def storage_problems(root: Path) -> set[str]:
    """Links that dangle or are not links, and tags that point to less than a whole image, each with its path."""
    look = _Look(f"{root}/")
    problems: set[str] = set()
    repositories = f"{root}/{layout.REPOSITORIES}"
    for path in _paths(repositories) if Path(repositories).is_dir() else ():
        name = path[len(look.root) :]
        if name.endswith("/link"):
            problems |= {f"{name}: {lack}" for lack in look.problems_of_link(name)}
        elif name.rpartition("/")[0].endswith("/_manifests/tags") and not Path(path, "current/link").exists():
            problems.add(f"{name}: a tag without a link")  # a registry lists it
    return problems


@dataclass
class _Look:
    """One look at a storage: each blob is hashed once. `root` ends with a slash, other paths are below it."""

    root: str
    sizes: dict[Digest, int | None] = field(default_factory=dict)

    def problems_of_link(self, name: str) -> set[str]:
        digest = self._linked(name)
        if digest is None:
            return {"not a link"}
        if not self._is_sound(digest, None):
            return {"dangles"}
        if not name.endswith("/current/link"):
            return set()
        return self._lacks(name.removeprefix(f"{layout.REPOSITORIES}/").partition("/_manifests/")[0], digest)

    def _lacks(self, repository: str, digest: Digest) -> set[str]:
        if self._linked(layout.revision_link(repository, digest)) != digest or not self._is_sound(digest, None):
            return {f"no manifest {digest.short}"}
        manifest = parse_manifest(Path(self.root, layout.blob_path(digest)).read_bytes())
        if not isinstance(manifest, Manifest):
            return {lack for child in manifest.manifests for lack in self._lacks(repository, child.digest)}
        return {
            f"no blob {blob.digest.short}"
            for blob in manifest.blobs
            if self._linked(layout.layer_link(repository, blob.digest)) != blob.digest
            or not self._is_sound(blob.digest, blob.size)
        }

    def _linked(self, name: str) -> Digest | None:
        text = (_bytes_of(f"{self.root}{name}") or b"").decode("ascii", errors="replace")
        prefix, _, digits = text.partition(":")
        return Digest(digits) if prefix == "sha256" and len(text) == layout.LINK_BYTES else None

    def _is_sound(self, digest: Digest, size: int | None) -> bool:
        if digest not in self.sizes:
            data = _bytes_of(f"{self.root}{layout.blob_path(digest)}")
            self.sizes[digest] = None if data is None or Digest.of(data) != digest else len(data)
        found = self.sizes[digest]
        return found is not None and size in {None, found}


def _bytes_of(path: str) -> bytes | None:
    """None where it is no regular file."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _state(path: str) -> tuple[str, int, int, str]:
    status = os.lstat(path)
    data = (_bytes_of(path) or b"") if stat.S_ISREG(status.st_mode) else b""
    return stat.filemode(status.st_mode), status.st_uid, status.st_gid, hashlib.sha256(data).hexdigest()[:12]


def _document(media_type: str, **content: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, **content}).encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def _child(raw: bytes, platform: str | None) -> dict[str, object]:
    descriptor = _descriptor(parse_manifest(raw).media_type, raw)
    if platform is not None:
        keys = ("os", "architecture", "variant")
        descriptor["platform"] = dict(zip(keys, platform.split("/"), strict=False))
    return descriptor


def _tar(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(name.replace("/", "-"))
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _unpacked(layer: bytes) -> bytes:
    return gzip.decompress(layer) if layer.startswith(b"\x1f\x8b") else layer


def open_below(root: Path) -> list[str]:
    """The files and directories at or below `root` that this process has open. Others come and go with other tests."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            target = f"{descriptor.readlink()}"
            if f"{target}/".startswith(f"{root}/"):
                found.append(target)
    return sorted(found)
