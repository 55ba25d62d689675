"""An image with a storage inside: the base it stands on, the layer with the storage, and the documents of both."""

import gzip
import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from regwrap.bundle.discovery import storage_image_set
from regwrap.bundle.image_set import ImageSet
from regwrap.core import ocilayout
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT, Listener
from regwrap.core.manifest import DOCKER_MANIFEST, OCI_MANIFEST, Descriptor, Manifest, parse_manifest
from regwrap.core.model import Digest, Platform
from regwrap.core.ocilayout import LayoutEntry
from regwrap.forms.baked_base import BaseImage, empty_base, read_base, registry_program
from regwrap.forms.baked_image import CONFIG_TYPE, image_beyond, image_with, parse_config
from regwrap.forms.baked_layer import Layer, compressed, write_layer
from regwrap.storage.store import Storage
from tests.builders import (
    Image,
    flip,
    index_of,
    make_config,
    make_image,
    make_layer,
    make_multi_image,
    make_storage,
    open_below,
    put,
    snapshot,
    storage_problems,
)
from tests.told import Told

AMD, ARM, ARM7 = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "arm", "v7")
LONG = f"{'deep/' * 20}app"
IMAGES = {"app:1": make_image("app"), "multi:1": make_multi_image("multi"), f"{LONG}:1": make_image("long")}


# --- the layer


@pytest.fixture
def image_set(tmp_path: Path) -> ImageSet:
    return storage_image_set(Storage(make_storage(tmp_path / "archive", IMAGES)))


def layer_of(image_set: ImageSet, path: Path, listener: Listener = SILENT) -> Layer:
    extra = {"/etc/regwrap/registry.yml": b"version: 0.1\n", "/srv/note": b"x" * 1024}
    return write_layer(image_set, path, root="/srv/registry", extra=extra, listener=listener)


def unpacked(layer: Path, root: Path) -> list[tarfile.TarInfo]:
    """By hand: what `extractall` has to be told differs between Python 3.11.2 and 3.13."""
    with tarfile.open(layer) as archive:
        members = archive.getmembers()
        for member in members:
            if member.isdir():
                (root / member.name).mkdir(parents=True)
            elif data := archive.extractfile(member):
                (root / member.name).write_bytes(data.read())
    return members


@pytest.mark.slow
def test_a_layer_unpacks_to_the_storage_and_the_files_beside_it(image_set: ImageSet, tmp_path: Path) -> None:
    told = Told()
    layer = layer_of(image_set, tmp_path / "layer.tar", told)
    members = unpacked(layer.path, tmp_path / "root")
    root = tmp_path / "root/srv/registry"
    assert {(m.uid, m.gid, m.mtime, m.mode) for m in members if m.isreg()} == {(0, 0, 0, 0o644)}
    assert {m.mode for m in members if m.isdir()} == {0o755}
    assert not storage_problems(root)
    assert storage_image_set(Storage(root)).contents == image_set.contents
    assert (tmp_path / "root/etc/regwrap/registry.yml").read_bytes() == b"version: 0.1\n"
    assert (tmp_path / "root/srv/note").read_bytes() == b"x" * 1024
    size = image_set.contents.blob_bytes
    assert (told.steps, told.done) == ([("bake", "", size), ("hash", "", size)], [size, size])


def test_each_directory_of_a_layer_comes_before_what_is_in_it(image_set: ImageSet, tmp_path: Path) -> None:
    """An engine makes one that is missing with an owner and a time of its own."""
    with tarfile.open(layer_of(image_set, tmp_path / "layer.tar").path) as archive:
        names = [(member.name, member.isdir()) for member in archive]
    known = {""}
    for name, is_directory in names:
        assert name.rpartition("/")[0] in known
        if is_directory:
            known.add(name)


def test_a_layer_is_told_as_it_lies_there(image_set: ImageSet, tmp_path: Path) -> None:
    layer = layer_of(image_set, tmp_path / "layer.tar")
    data = layer.path.read_bytes()
    assert layer.diff_id == layer.digest == Digest.of(data)
    assert (layer.size, layer.media_type) == (len(data), "application/vnd.oci.image.layer.v1.tar")
    with tarfile.open(layer.path) as archive:
        last = archive.getmembers()[-1]
    assert data[last.offset_data + 512 :] == bytes(1024), "an end, and nothing behind it"
    assert f"{layer.path}" not in open_below(tmp_path)


def test_the_order_in_which_files_are_given_is_no_part_of_a_layer(image_set: ImageSet, tmp_path: Path) -> None:
    """The same image on any machine, from any run."""
    files = {"/etc/regwrap/registry.yml": b"version: 0.1\n", "/srv/note": b"x" * 1024}
    one, other = (
        write_layer(image_set, tmp_path / f"{number}.tar", root="/srv/registry", extra=dict(extra), listener=SILENT)
        for number, extra in enumerate((files.items(), reversed(files.items())))
    )
    assert one.digest == other.digest


def test_a_compressed_layer_has_the_same_tar_in_it_and_nothing_of_this_machine(
    image_set: ImageSet, tmp_path: Path
) -> None:
    layer = layer_of(image_set, tmp_path / "layer.tar")
    told = Told()
    packed = compressed(layer, tmp_path / "layer.tar.gz", told)
    assert (told.steps, told.done) == ([("compress", "", layer.size)], [layer.size])
    data = packed.path.read_bytes()
    assert gzip.decompress(data) == layer.path.read_bytes()
    assert (packed.diff_id, packed.digest, packed.size) == (layer.diff_id, Digest.of(data), len(data))
    assert packed.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert data[4:8] == bytes(4)  # its time
    assert b"layer" not in data[:20]  # its name
    assert packed.size < layer.size
    assert data[10:] == gzip.compress(layer.path.read_bytes(), compresslevel=6, mtime=0)[10:]


def test_a_blob_that_is_rotten_is_found_in_what_was_written(image_set: ImageSet, tmp_path: Path) -> None:
    victim = Digest.of(IMAGES["app:1"].blobs[1])
    flip(Storage(tmp_path / "archive").blob_path(victim))
    with pytest.raises(IntegrityError, match="is damaged") as raised:
        layer_of(image_set, tmp_path / "layer.tar")
    assert raised.value.problems == (f"blob {victim} does not match its digest",)


def test_a_layer_is_a_new_file(image_set: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        layer_of(image_set, tmp_path / "layer.tar")


# --- the base


def archive_of(*names: str, packed: bool = True, cut: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    data = buffer.getvalue()[: 512 * len(names) if cut else None]
    return gzip.compress(data, mtime=0) if packed else data


def base_of(*layers: bytes, platform: str = "linux/amd64") -> Image:
    config = make_config([make_layer("x")] * len(layers), platform)
    descriptors = [{"mediaType": "x", "digest": f"{Digest.of(data)}", "size": len(data)} for data in layers]
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": CONFIG_TYPE, "digest": f"{Digest.of(config)}", "size": len(config)},
            "layers": descriptors,
        }
    ).encode()
    return Image((raw,), (config, *layers))


def as_layout(place: Path, **images: Image) -> Path:
    put(place / ocilayout.MARK, ocilayout.MARK_BYTES)
    entries = []
    for name, image in images.items():
        for data in (*image.blobs, *image.manifests):
            put(place / ocilayout.blob_path(Digest.of(data)), data)
        media_type = parse_manifest(image.raw).media_type
        entries.append(LayoutEntry(name=name, media_type=media_type, digest=image.top, size=len(image.raw)))
    put(place / ocilayout.INDEX, ocilayout.index_bytes(tuple(entries)))
    return place


def test_a_base_is_the_image_of_that_name_and_of_an_index_the_one_for_the_platform(tmp_path: Path) -> None:
    amd, arm = base_of(b"amd"), base_of(b"arm", platform="linux/arm64")
    layout = as_layout(tmp_path / "layout", plain=amd, both=index_of([amd, arm], ["linux/amd64", "linux/arm64"]))
    for name, platform, image in (("plain", AMD, amd), ("both", AMD, amd), ("both", ARM, arm)):
        base = read_base(layout, name, platform)
        assert [layer.digest for layer in base.layers] == [Digest.of(image.blobs[1])]
        assert (base.layout, base.config) == (layout, json.loads(image.blobs[0]))


def test_what_is_no_base_is_refused_with_what_to_do(tmp_path: Path) -> None:
    amd = base_of(b"amd")
    docker = make_image("docker", kind="docker")
    nested = index_of([index_of([amd])], ["linux/amd64"])
    bare = index_of([amd])
    layout = as_layout(tmp_path / "layout", both=index_of([amd], ["linux/amd64"]), nested=nested, docker=docker, b=bare)
    for name, platform, said in (
        ("both", ARM, "the base image has no linux/arm64"),
        ("b", AMD, "the base image has no linux/amd64"),
        ("nested", AMD, "nested index"),
        ("docker", AMD, rf"not an OCI image \({DOCKER_MANIFEST}"),
        ("gone", AMD, "no image gone"),
    ):
        with pytest.raises(UsageError, match=said.replace("+", r"\+")):
            read_base(layout, name, platform)


def test_a_base_that_lacks_a_layer_or_has_rotten_is_refused(tmp_path: Path) -> None:
    image = base_of(b"layer")
    layout = as_layout(tmp_path / "layout", base=image)
    layer = layout / ocilayout.blob_path(Digest.of(image.blobs[1]))
    layer.write_bytes(b"cut")
    with pytest.raises(UsageError, match=f"layer {Digest.of(image.blobs[1])} is not in {layout}"):
        read_base(layout, "base", AMD)
    layer.unlink()
    with pytest.raises(UsageError, match="is incomplete"):
        read_base(layout, "base", AMD)
    flip(layout / ocilayout.blob_path(Digest.of(image.blobs[0])))
    with pytest.raises(IntegrityError):
        read_base(layout, "base", AMD)
    (layout / ocilayout.blob_path(image.top)).unlink()
    with pytest.raises(IntegrityError, match="No such file"):
        read_base(layout, "base", AMD)


def with_config(image: Image, media_type: str) -> Image:
    """The image, whose manifest calls its config something else."""
    document = json.loads(image.raw)
    document["config"]["mediaType"] = media_type
    return Image((json.dumps(document).encode(),), image.blobs)


def test_an_oci_manifest_with_a_config_of_docker_is_no_oci_image(tmp_path: Path) -> None:
    docker = "application/vnd.docker.container.image.v1+json"
    layout = as_layout(tmp_path / "layout", mixed=with_config(base_of(b"amd"), docker))
    with pytest.raises(UsageError, match=rf"not an OCI image .*, config {re.escape(docker)}"):
        read_base(layout, "mixed", AMD)


BEYOND: dict[str, object] = {"Healthcheck": {"Test": ["CMD", "true"]}, "OnBuild": [], "Shell": ["/bin/ash"]}


@pytest.mark.parametrize(
    ("run", "beyond"),
    [
        ({**BEYOND, "Env": ["A=b"]}, {"Healthcheck": {"Test": ["CMD", "true"]}, "Shell": ["/bin/ash"]}),
        (None, {}),
    ],
)
def test_what_docker_reads_beyond_oci_is_taken_from_the_config_before_it_was_converted(
    tmp_path: Path, run: object, beyond: dict[str, object]
) -> None:
    image = base_of(b"layer")
    layout = as_layout(tmp_path / "layout", base=image)
    original = json.dumps({**json.loads(image.blobs[0]), "config": run}).encode()
    assert read_base(layout, "base", AMD, original).beyond == beyond
    assert read_base(layout, "base", AMD).beyond == {}


@pytest.mark.parametrize("run", [{"Env": ["A=b"], "Shell": ["/bin/sh"]}, None])
def test_a_baked_image_keeps_how_its_base_is_watched_and_all_else(run: dict[str, object] | None) -> None:
    image = base_of(b"layer")
    config = {**json.loads(image.blobs[0]), "config": run}
    manifest = parse_manifest(image.raw)
    assert isinstance(manifest, Manifest)
    made = image_beyond(json.dumps(config).encode(), manifest, {"Shell": ["/bin/ash"]})
    assert json.loads(made.config) == {**config, "config": {**(run or {}), "Shell": ["/bin/ash"]}}
    document = json.loads(made.manifest)
    assert document.pop("config") == {
        "mediaType": CONFIG_TYPE, "digest": f"{Digest.of(made.config)}", "size": len(made.config),
    }  # fmt: skip
    assert document == {key: value for key, value in json.loads(image.raw).items() if key != "config"}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"[]", b"{}", b"[" * 100_000, b"\xff{}", b'{"rootfs": 1}', b'{"rootfs": {"diff_ids": 1}}',
        b'{"rootfs": {"diff_ids": []}, "config": 5}', b'{"rootfs": {"diff_ids": []}, "config": {"Volumes": 5}}',
        b'{"rootfs": {"diff_ids": []}, "config": {"StopTimeout": NaN}}',
    ],
)  # fmt: skip
def test_a_config_that_is_none_is_damage(raw: bytes) -> None:
    with pytest.raises(IntegrityError, match="config cannot be parsed"):
        parse_config(raw)


def program_of(tmp_path: Path, *layers: bytes) -> str:
    return registry_program(read_base(as_layout(tmp_path / "layout", base=base_of(*layers)), "base", AMD))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["./usr/bin/docker-registry"], "/usr/bin/docker-registry"),
        (["/bin/registry"], "/bin/registry"),
        (["usr/local/bin/registry", "usr/bin/registry", "bin/registry"], "/bin/registry"),
    ],
)
def test_the_registry_is_found_in_whatever_layer_it_is(tmp_path: Path, names: list[str], found: str) -> None:
    other = archive_of("etc/passwd")
    assert program_of(tmp_path / "first", archive_of(*names), other) == found
    assert program_of(tmp_path / "last", other, archive_of("bin/sh", *names, packed=False)) == found


def test_a_layer_without_an_end_or_of_another_kind_hides_no_other(tmp_path: Path) -> None:
    cut = archive_of("bin/registry", packed=False, cut=True)
    assert program_of(tmp_path / "cut", b"\x28\xb5\x2f\xfd of zstd", cut) == "/bin/registry"


def test_a_base_without_a_registry_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the base image has no registry") as raised:
        program_of(tmp_path, archive_of("opt/bin/registry", "registry"))
    assert "usr/bin/docker-registry, bin/registry" in raised.value.detail
    assert "--registry /path/in/the/image" in raised.value.hint
    with pytest.raises(UsageError):
        registry_program(empty_base(AMD))


# --- the documents


def layer_for() -> Layer:
    return Layer(
        path=Path("layer"), diff_id=Digest.of(b"tar"), digest=Digest.of(b"gz"), size=7, media_type="x/layer+gzip"
    )


@pytest.mark.parametrize("platform", [AMD, ARM7])
def test_an_image_without_a_base_has_the_one_layer(platform: Platform) -> None:
    base = empty_base(platform)
    documents = image_with(layer_for(), base.config, base.layers)
    config = json.loads(documents.config)
    for raw in (documents.config, documents.manifest):  # one form, whatever order they were put together in
        assert raw == json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":")).encode()
    assert config == {
        "architecture": platform.architecture,
        "os": "linux",
        **({"variant": "v7"} if platform.variant else {}),
        "config": {},
        "created": "1970-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [f"{Digest.of(b'tar')}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "regwrap bake"}],
    }
    manifest = parse_manifest(documents.manifest)
    assert isinstance(manifest, Manifest)
    assert manifest.config.digest == Digest.of(documents.config)
    assert manifest.config.size == len(documents.config)
    assert [(b.media_type, b.digest, b.size) for b in manifest.layers] == [("x/layer+gzip", Digest.of(b"gz"), 7)]


def test_an_image_with_a_base_keeps_all_of_it_below(tmp_path: Path) -> None:
    base = read_base(as_layout(tmp_path / "layout", base=base_of(b"one", b"two")), "base", AMD)
    config = {**base.config, "config": {"Env": ["A=b"]}}
    documents = image_with(layer_for(), config, base.layers)
    made, manifest = json.loads(documents.config), parse_manifest(documents.manifest)
    assert isinstance(manifest, Manifest)
    assert manifest.layers[:2] == base.layers
    assert manifest.layers[2].digest == Digest.of(b"gz")
    rootfs = base.config["rootfs"]
    assert isinstance(rootfs, dict)
    assert made["rootfs"]["diff_ids"] == [*rootfs["diff_ids"], f"{Digest.of(b'tar')}"]
    assert made["config"] == {"Env": ["A=b"]}
    assert len(made["history"]) == 3


@pytest.mark.parametrize("wrong", [{"rootfs": []}, {"history": {"a": 1}}])
def test_a_base_whose_config_is_odd_is_damage(wrong: dict[str, object]) -> None:
    base = BaseImage(layout=None, config={**empty_base(AMD).config, **wrong}, layers=())
    with pytest.raises(IntegrityError):
        image_with(layer_for(), base.config, base.layers)


def test_a_base_without_a_history_gets_one() -> None:
    config: dict[str, object] = {"rootfs": {"diff_ids": []}, "history": None}
    below = (Descriptor(media_type="x", digest=Digest.of(b"x"), size=1),)
    assert len(json.loads(image_with(layer_for(), config, below).config)["history"]) == 1


def test_nothing_is_written_by_looking(tmp_path: Path) -> None:
    layout = as_layout(tmp_path / "layout", base=base_of(archive_of("bin/registry")))
    before = snapshot(tmp_path)
    registry_program(read_base(layout, "base", AMD))
    assert snapshot(tmp_path) == before
