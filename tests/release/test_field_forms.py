"""Images in other shapes, as docker and containerd write and read them."""

import json

import pytest

from regwrap.core.model import Digest
from tests.builders import Image, make_config, make_image, make_layer, make_manifest, make_storage, put
from tests.fieldregistry import field_registry
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

BEYOND = {
    "Healthcheck": {"Test": ["CMD", "/bin/registry", "--version"], "Interval": 30000000000},
    "OnBuild": ["RUN true"],
    "Shell": ["/bin/ash", "-c"],
    "StopTimeout": 3,
}
PROGRAM = ("--registry", "/bin/registry")
NAME, WHOLE = "org.opencontainers.image.ref.name", "io.containerd.image.name"


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_bake_keeps_what_docker_reads_and_says_that_oci_has_no_key_for_it(cli: Cli, kind: str) -> None:
    layers = [make_layer("bin/registry")]
    config = {**json.loads(make_config(layers)), "config": {**BEYOND, "StopSignal": "SIGQUIT", "User": "1000:1000"}}
    raw = json.dumps(config).encode()
    manifest = make_manifest(raw, layers, "docker" if kind == "docker" else "oci")
    base = Image(manifests=(manifest,), blobs=(raw, *layers))
    make_storage(cli.directory / "storage", {"team/app:v1": make_image("a")})
    with field_registry({"base/registry:2": base}) as registry:
        done = cli("bake", "storage", "--to", "oci:out:v1", "--base", f"{registry.host}/base/registry:2", *PROGRAM)
    assert done.returncode == 0, done.stderr
    assert "Healthcheck, OnBuild, Shell, StopTimeout are kept for docker" in done.stderr
    out = cli.directory / "out"
    (entry,) = json.loads((out / "index.json").read_text())["manifests"]
    found = json.loads((out / "blobs/sha256" / entry["digest"][7:]).read_text())
    run = json.loads((out / "blobs/sha256" / found["config"]["digest"][7:]).read_text())["config"]
    assert {**run, **BEYOND, "StopSignal": "SIGQUIT", "User": "1000:1000"} == run


def test_an_export_has_the_names_that_containerd_gives(cli: Cli) -> None:
    images = {"app:v1": make_image("a"), "team/app:v1": make_image("b"), "r.example_5000/team/app:v1": make_image("c")}
    make_storage(cli.directory / "storage", images)
    done = cli("export", "storage", "out", "--format", "oci")
    assert done.returncode == 0, done.stderr
    entries = json.loads((cli.directory / "out/index.json").read_text())["manifests"]
    assert {entry["annotations"][NAME]: entry["annotations"][WHOLE] for entry in entries} == {
        "app:v1": "docker.io/library/app:v1",
        "team/app:v1": "docker.io/team/app:v1",
        "r.example_5000/team/app:v1": "r.example:5000/team/app:v1",
    }


def test_an_export_of_containerd_names_its_images(cli: Cli) -> None:
    """`ctr images export` and `docker save` write the tag, and the whole name beside it."""
    image, layout = make_image("a"), cli.directory / "in"
    for data in (*image.blobs, *image.manifests):
        put(layout / "blobs/sha256" / Digest.of(data).hex, data)
    named = {NAME: "v1", WHOLE: "r.example:5000/team/app:v1"}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    entry = {"mediaType": media_type, "digest": f"{image.top}", "size": len(image.raw), "annotations": named}
    put(layout / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    put(layout / "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    done = cli("import", "oci:in", "storage")
    assert done.returncode == 0, done.stderr
    assert "storage/team/app:v1" in cli("list", "from-registry", "storage").stdout.replace("\n", "\nstorage/")
