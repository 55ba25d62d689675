"""Which files an export has: what skopeo, docker and containerd look for, under the names that they know."""

import json
from pathlib import Path

import pytest

from regwrap.bundle.discovery import storage_image_set
from regwrap.bundle.image_set import ImageSet
from regwrap.core.errors import IntegrityError
from regwrap.core.model import Digest
from regwrap.forms.tree import Form, containerd_name, tree_files
from regwrap.storage import layout
from regwrap.storage.store import Storage
from tests.builders import make_image, make_multi_image, make_storage, remove

MULTI, OLD, NEW = make_multi_image("multi"), make_image("old"), make_image("new")
# a tag's digest decides nothing about the order of names
IMAGES = {"team/multi:1": MULTI, "app:old": OLD, "app:new": NEW}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_storage(tmp_path / "root", IMAGES)


def of(root: Path) -> ImageSet:
    return storage_image_set(Storage(root))


def files_of(root: Path, form: Form) -> dict[str, tuple[Digest, int]]:
    """Path, digest and size, in the order of the paths."""
    image_set = of(root)
    files = tree_files(image_set.contents, image_set.read, form)
    assert [file.path for file in files] == sorted(file.path for file in files)
    assert all(
        file.data is None or (Digest.of(file.data), len(file.data)) == (file.digest, file.size) for file in files
    )
    return {file.path: (file.digest, file.size) for file in files}


def told(data: bytes) -> tuple[Digest, int]:
    return Digest.of(data), len(data)


def test_each_image_is_a_directory_of_its_own_with_all_that_belongs_to_it(root: Path) -> None:
    files = files_of(root, Form.DIR)
    for name, image in IMAGES.items():
        children = {f"{name}/{Digest.of(raw).hex}.manifest.json": told(raw) for raw in image.manifests[:-1]}
        blobs = {f"{name}/{Digest.of(blob).hex}": told(blob) for blob in image.blobs}
        mine = {path: file for path, file in files.items() if path.startswith(f"{name}/")}
        version = mine.pop(f"{name}/version")
        assert mine == {f"{name}/manifest.json": told(image.raw), **children, **blobs}
        assert version == told(b"Directory Transport Version: 1.1\n")


def test_a_layout_has_each_blob_once_and_names_every_image_for_skopeo_and_for_docker(root: Path) -> None:
    image_set = of(root)
    files = {file.path: file for file in tree_files(image_set.contents, image_set.read, Form.OCI)}
    index = files.pop("index.json").data
    assert files.pop("oci-layout").data == b'{"imageLayoutVersion":"1.0.0"}'
    data = {part for image in IMAGES.values() for part in (*image.manifests, *image.blobs)}
    assert {path: (file.digest, file.size) for path, file in files.items()} == {
        f"blobs/sha256/{Digest.of(part).hex}": told(part) for part in data
    }
    assert index is not None
    names = {
        entry["annotations"]["org.opencontainers.image.ref.name"]: (
            entry["digest"], entry["size"], entry["annotations"]["io.containerd.image.name"],
        )
        for entry in json.loads(index)["manifests"]
    }  # fmt: skip
    assert names == {
        name: (f"{image.top}", len(image.raw), f"docker.io/{'' if '/' in name else 'library/'}{name}")
        for name, image in IMAGES.items()
    }


def test_what_an_index_leaves_out_is_not_missed(root: Path) -> None:
    child = Digest.of(MULTI.manifests[0])
    remove(root / layout.revision_link("team/multi", child))
    remove(root / layout.blob_path(child))
    assert f"team/multi:1/{child.hex}.manifest.json" not in files_of(root, Form.DIR)


def test_an_image_whose_manifest_is_gone_is_named(root: Path) -> None:
    image_set = of(root)
    with pytest.raises(IntegrityError, match=f"app:new: its manifest {NEW.top} is missing"):
        tree_files(image_set.contents, lambda digest: None if digest == NEW.top else image_set.read(digest), Form.DIR)


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("app:1", "docker.io/library/app:1"),
        ("team/app:1", "docker.io/team/app:1"),
        ("quay.io/team/app:1", "quay.io/team/app:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("r.example_5000/team/app:1", "r.example:5000/team/app:1"),
        ("r.example_x/app:1", "r.example_x/app:1"),
        ("a.b:1", "docker.io/library/a.b:1"),
    ],
)
def test_docker_finds_an_image_by_the_name_that_it_would_pull(name: str, called: str) -> None:
    assert containerd_name(name) == called
