"""A history out of an image that others made: only known shapes of path, only right bytes."""

import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.manifest import OCI_MANIFEST
from regwrap.core.model import Digest, Platform
from regwrap.forms.baked_image import CONFIG_TYPE, volumes_over
from regwrap.forms.baked_unpack import Unpacked, unpack_history
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import flip, make_layer, put

BLOB = b"a layer"
DIGEST = Digest.of(BLOB)
PREFIX = "var/lib/registry"


def make_image(directory: Path, members: list[tuple[str, bytes, bytes]]) -> Path:
    """A layout with an image of one layer with members (name, type, content or link target)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, data in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(data)
            else:
                member.linkname = data.decode()
            archive.addfile(member, io.BytesIO(data))
    layer = buffer.getvalue()
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]}}).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [{"mediaType": "x", "digest": str(Digest.of(layer)), "size": len(layer)}],
        }
    ).encode()
    put(directory / ocilayout.MARK, ocilayout.MARK_BYTES)
    put(directory / ocilayout.blob_path(Digest.of(layer)), layer)
    (directory / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    ocilayout.write_image(directory, "v1", (config, manifest), OCI_MANIFEST)
    return directory


def unpack(tmp_path: Path, *members: tuple[str, bytes, bytes]) -> Unpacked:
    image = make_image(tmp_path / "image", [(f"{PREFIX}/{layout.blob_path(DIGEST)}", tarfile.REGTYPE, BLOB), *members])
    return unpack_history(image, "v1", Platform("linux", "amd64"), tmp_path / "root", lambda _count: None)


def test_blobs_and_links_are_unpacked_and_tags_left_behind(tmp_path: Path) -> None:
    link = str(DIGEST).encode()
    found = unpack(
        tmp_path,
        (f"./{PREFIX}/{layout.layer_link('team/app', DIGEST)}", tarfile.REGTYPE, link),
        (f"{PREFIX}/{layout.tag_link('team/app', 'v1')}", tarfile.REGTYPE, link),
        (f"{PREFIX}/{layout.revision_link('team/app', DIGEST)}", tarfile.REGTYPE, link),
    )
    assert found == Unpacked(blobs=1, bytes=len(BLOB), links=1)
    storage = Storage(tmp_path / "root")
    assert storage.has_layer("team/app", DIGEST)
    assert storage.blob_path(DIGEST).read_bytes() == BLOB
    assert storage.tags("team/app") == ()
    assert storage.revisions("team/app") == ()


def test_what_an_enemy_puts_into_a_layer_is_not_made(tmp_path: Path) -> None:
    other, link = Digest.of(b"other"), f"{DIGEST}".encode()
    unpack(
        tmp_path,
        ("../escaped", tarfile.REGTYPE, b"x"),
        (f"../../{layout.BLOBS}/../../data", tarfile.REGTYPE, b"x"),
        (f"{PREFIX}/{layout.blob_path(other)}", tarfile.SYMTYPE, b"/etc/passwd"),
        (f"{PREFIX}/{layout.REPOSITORIES}/../../x/_layers/sha256/{DIGEST.hex}/link", tarfile.REGTYPE, link),
        (f"{PREFIX}/{layout.layer_link('longer', DIGEST)}", tarfile.REGTYPE, link + b"\n"),
        (f"{PREFIX}/{layout.layer_link('gone', other)}", tarfile.REGTYPE, str(other).encode()),
        (f"{PREFIX}/{layout.layer_link('wrong', DIGEST)}", tarfile.REGTYPE, str(other).encode()),
    )
    assert [path.name for path in (tmp_path / "root").rglob("*") if not path.is_dir()] == ["data"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "root"]


def test_a_blob_with_other_bytes_is_an_error(tmp_path: Path) -> None:
    other = Digest.of(b"other")
    with pytest.raises(IntegrityError, match="does not match"):
        unpack(tmp_path, (f"{PREFIX}/{layout.blob_path(other)}", tarfile.REGTYPE, b"wrong"))


@pytest.mark.parametrize(
    ("volume", "covered"),
    [
        ("/var/lib/registry", True), ("/var", True), ("/", True), ("/var/lib/reg", False), ("/data", False),
        ("/var/lib/registry/docker", False),
    ],
)  # fmt: skip
def test_a_volume_over_the_storage_is_seen(volume: str, *, covered: bool) -> None:
    volumes: dict[str, object] = {volume: {}}
    assert volumes_over({"config": {"Volumes": volumes}}, "/var/lib/registry") is covered
    assert volumes_over({"config": {"Volumes": {**volumes, "/elsewhere": {}}}}, "/var/lib/registry") is covered


@pytest.mark.parametrize("config", [{}, {"config": None}, {"config": {}}, {"config": {"Volumes": None}}])
def test_an_image_without_volumes_covers_nothing(config: dict[str, object]) -> None:
    assert not volumes_over(config, "/var/lib/registry")


def unpacked(tmp_path: Path, image: Path) -> Unpacked:
    return unpack_history(image, "v1", Platform("linux", "amd64"), tmp_path / "root", lambda _count: None)


def test_a_history_without_links_is_a_storage_too(tmp_path: Path) -> None:
    assert unpack(tmp_path) == Unpacked(blobs=1, bytes=len(BLOB), links=0)
    assert (tmp_path / "root" / layout.REPOSITORIES).is_dir()


def test_an_image_without_a_storage_says_how_to_make_one(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", [("etc/passwd", tarfile.REGTYPE, b"root")])
    with pytest.raises(UsageError, match="contains no registry storage") as raised:
        unpacked(tmp_path, image)
    assert "regwrap bake --history" in raised.value.hint
    assert (tmp_path / "root" / layout.BLOBS).is_dir()


CUT = make_layer("noise", random.Random(1).randbytes(20_000))[:-9_000]


@pytest.mark.parametrize("layer", [b"no tar" * 200, CUT], ids=["no tar", "cut"])
def test_a_layer_that_cannot_be_read_is_damage(tmp_path: Path, layer: bytes) -> None:
    image = with_layer(make_image(tmp_path / "image", []), layer)
    with pytest.raises(IntegrityError, match=f"layer {Digest.of(layer)} of the history cannot be read"):
        unpacked(tmp_path, image)


def test_a_layer_with_other_bytes_is_not_read(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", [(f"{PREFIX}/{layout.blob_path(DIGEST)}", tarfile.REGTYPE, BLOB)])
    (layer,) = (path for path in (image / "blobs/sha256").iterdir() if path.stat().st_size >= 10240)
    flip(layer)
    with pytest.raises(IntegrityError, match=f"blob sha256:{layer.name} does not match its digest"):
        unpacked(tmp_path, image)


def test_each_layer_is_told_when_it_is_done(tmp_path: Path) -> None:
    told: list[int] = []
    image = make_image(tmp_path / "image", [(f"{PREFIX}/{layout.blob_path(DIGEST)}", tarfile.REGTYPE, BLOB)])
    unpack_history(image, None, Platform("linux", "amd64"), tmp_path / "root", told.append)
    assert told == [10240]


def with_layer(image: Path, layer: bytes) -> Path:
    """The image with this layer in place of its own."""
    entry = ocilayout.named_entry(image, "v1")
    document = json.loads(ocilayout.read_blob(image, entry.digest))
    config = ocilayout.read_blob(image, Digest.parse(document["config"]["digest"]))
    document["layers"] = [{"mediaType": "x", "digest": f"{Digest.of(layer)}", "size": len(layer)}]
    put(image / ocilayout.blob_path(Digest.of(layer)), layer)
    ocilayout.write_image(image, "v1", (config, json.dumps(document).encode()), OCI_MANIFEST)
    return image


def test_a_blob_that_two_layers_have_is_one(tmp_path: Path) -> None:
    again = (f"other/{layout.blob_path(DIGEST)}", tarfile.REGTYPE, BLOB)
    assert unpack(tmp_path, again) == Unpacked(blobs=1, bytes=len(BLOB), links=0)
