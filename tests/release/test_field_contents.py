"""What registries and storages in the field really hold, and catalogs of which a part cannot be read."""

import json

import pytest

from regwrap.core.manifest import OCI_INDEX
from regwrap.core.model import Digest
from tests.answering import Answer, Asked
from tests.builders import Image, index_of, make_image, make_storage, put, storage_problems
from tests.fieldregistry import FieldRegistry, field_registry, refusing
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

QUICK = "retry: {attempts: 2, wait: 0, max_wait: 1}\n"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def altered(image: Image, **changes: object) -> Image:
    """The same image with other keys in its manifest; what is changed to `...` is left out."""
    document = {key: value for key, value in {**json.loads(image.raw), **changes}.items() if value is not ...}
    return Image(manifests=(json.dumps(document).encode(),), blobs=image.blobs)


def windows(seed: str) -> Image:
    image = make_image(seed, kind="docker", platform="windows/amd64")
    layers = [
        dict(layer, mediaType=FOREIGN, urls=["http://127.0.0.1:1/x"]) for layer in json.loads(image.raw)["layers"]
    ]
    return altered(image, layers=layers)


def forget_layers(registry: FieldRegistry, image: Image) -> None:
    for name in [name for name in registry.blobs if any(f"{Digest.of(blob)}" in name for blob in image.blobs[1:])]:
        del registry.blobs[name]


def synced(cli: Cli, registry: FieldRegistry, line: str) -> tuple[int, str]:
    put(cli.directory / "regwrap.yaml", QUICK.encode())
    put(cli.directory / "images.list", f"{registry.host}/{line}\n".encode())
    done = cli("sync", "images.list")
    return done.returncode, done.stderr


def test_a_foreign_layer_that_is_there_is_copied(cli: Cli) -> None:
    with field_registry({"win/app:v1": windows("w")}) as registry:
        assert synced(cli, registry, "win/app:v1")[0] == 0
    assert storage_problems(cli.directory / "home/.local/share/regwrap/archive") == set()


def test_a_foreign_layer_that_is_not_there_names_what_helps(cli: Cli) -> None:
    both = index_of([make_image("l"), windows("w")], ["linux/amd64", "windows/amd64"])
    with field_registry({"multi/app:v1": both}) as registry:
        forget_layers(registry, windows("w"))
        code, said = synced(cli, registry, "multi/app:v1")
        assert (code, "select other platforms (platform=linux/amd64)" in said) == (1, True), said
        assert synced(cli, registry, "multi/app:v1 platform=linux/amd64")[0] == 0


@pytest.mark.parametrize("layers", [None, ...])
def test_no_layers_are_no_damage(cli: Cli, layers: object) -> None:
    image = altered(make_image("empty", layers=[]), layers=layers)
    with field_registry({"x/app:v1": image}) as registry:
        code, said = synced(cli, registry, "x/app:v1")
        assert code == 0, said
        archive = cli.directory / "home/.local/share/regwrap/archive"
        assert cli("verify", archive).returncode == 0
        pushed = cli("push", archive, f"{registry.host}/copy")
        assert "1 copied" in pushed.stdout, pushed.stderr


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"schemaVersion": 1, "name": "a", "tag": "b", "fsLayers": []}, "is of docker's schema 1"),
        ({"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "blobs": []}, "is an OCI artifact manifest"),
        ({"schemaVersion": 2, "config": {"digest": "sha512:00", "size": 1}, "layers": []}, "sha512 digests are not"),
        (
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [
                    {"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": f"sha256:{'0' * 64}", "size": 1}
                ],
            },
            "is a build cache of BuildKit",
        ),
    ],
)
def test_what_cannot_be_copied_is_called_by_its_name(cli: Cli, document: object, said: str) -> None:
    odd = Image(manifests=(json.dumps(document).encode(),), blobs=())
    with field_registry({"old/app:v1": odd}) as registry:
        code, told = synced(cli, registry, "old/app:v1")
    assert code == 1
    assert said in told


def test_arm64_v8_is_arm64(cli: Cli) -> None:
    image = index_of([make_image("a", platform="linux/arm64")], ["linux/arm64"])
    with field_registry({"team/app:v1": image}) as registry:
        assert synced(cli, registry, "team/app:v1 platform=linux/arm64/v8")[0] == 0


def test_a_page_with_404_is_absent(cli: Cli) -> None:
    def hook(asked: Asked) -> Answer | None:
        page = Answer(404, {"Content-Type": "text/html"}, b"<html>not found</html>")
        return page if "/manifests/v9" in asked.line else None

    with field_registry({"team/app:v1": make_image("a")}, hook) as registry:
        code, said = synced(cli, registry, "team/app:v9")
    assert (code, f"{registry.host} has no team/app:v9" in said) == (1, True), said


def test_links_that_a_registrys_collector_leaves_are_a_note(cli: Cli) -> None:
    root = make_storage(cli.directory / "storage", {"team/app:v1": make_image("a")})
    lost = Digest.of(b"lost")
    link = root / "docker/registry/v2/repositories/team/app/_layers/sha256" / lost.hex / "link"
    put(link, f"{lost}".encode())
    done = cli("verify", root)
    assert done.returncode == 0, done.stdout
    assert f"team/app: a layer's link points to {lost}, which is missing" in done.stdout + done.stderr


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_repository_that_cannot_be_listed_does_not_hide_the_others(cli: Cli, status: int) -> None:
    def hook(asked: Asked) -> Answer | None:
        challenge = 'Basic realm="tests"'
        return refusing(status, "DENIED", WWW_Authenticate=challenge) if "/other/secret/" in asked.line else None

    images = {name: make_image(name) for name in ("team/app:v1", "other/secret:v1", "zz/last:v1")}
    with field_registry(images, hook) as registry:
        put(cli.directory / "regwrap.yaml", f"source: {registry.host}\n{QUICK}images:\n  - match: '**:v*'\n".encode())
        listed = cli("list", "from-registry", registry.host)
        put(cli.directory / "images.list", b"# rules\n")
        locked = cli("lock", "images.list")
    assert [line for line in listed.stdout.splitlines() if "#" not in line] == [
        f"{registry.host}/team/app:v1",
        f"{registry.host}/zz/last:v1",
    ]
    assert (listed.returncode, locked.returncode) == (1, 1)
    assert "note: other/secret is left out: " in listed.stderr
    assert "note: other/secret is left out: " in locked.stderr
    assert "zz/last:v1" in (cli.directory / "images.lock").read_text()


def test_a_catalog_that_gives_less_at_once_is_asked_for_its_own_size(cli: Cli) -> None:
    def hook(asked: Asked) -> Answer | None:
        return refusing(400, "PAGINATION_NUMBER_INVALID") if "n=1000" in asked.line else None

    with field_registry({"team/app:v1": make_image("a")}, hook) as registry:
        listed = cli("list", "from-registry", registry.host)
    assert (listed.returncode, f"{registry.host}/team/app:v1" in listed.stdout) == (0, True), listed.stderr


def test_sizes_that_head_does_not_tell(cli: Cli) -> None:
    def hook(asked: Asked) -> Answer | None:
        unsized = Answer(200, {"Content-Length": "0"})
        is_blob = asked.line.startswith("HEAD") and "/blobs/" in asked.line
        known = any(name.endswith(asked.line.rpartition("/")[2]) for name in found[0].blobs)
        return unsized if is_blob and known else None

    found: list[FieldRegistry] = []
    root = make_storage(cli.directory / "storage", {"team/app:v1": make_image("a")})
    with field_registry({}, hook) as registry:
        found.append(registry)
        done = cli("push", root, registry.host)
    assert "1 copied" in done.stdout, done.stderr
