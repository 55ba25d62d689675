"""What is about an image comes along with it: cosign's tags, OCI referrers as tags and from a registry's API."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.core.manifest import OCI_INDEX, OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.storage import layout
from tests.builders import Image, make_image, make_multi_image, make_storage, storage_problems
from tests.conftest import StartRegistry
from tests.faultserver import faulty_proxy
from tests.release.regwrap_cli import Cli, raw_digest

pytestmark = pytest.mark.tools

APP = make_multi_image("app")
CHILD = Digest.of(APP.manifests[0])
OTHER = make_image("other")
SIGNATURE, ATTESTATION, ABOVE = make_image("signature"), make_image("attestation"), make_image("signed signature")


def tag_of(subject: Digest, end: str = "") -> str:
    return f"sha256-{subject.hex}{end}"


def artifact(subject: Digest) -> Image:
    """An SBOM as ORAS pushes it: an empty config, one layer, and a subject."""
    config, layer = b"{}", b'{"spdxVersion": "SPDX-2.3"}'
    blobs = [("application/vnd.oci.empty.v1+json", config), ("application/spdx+json", layer)]
    described = [{"mediaType": kind, "digest": f"{Digest.of(data)}", "size": len(data)} for kind, data in blobs]
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/spdx+json",
        "config": described[0],
        "layers": described[1:],
        "subject": {"mediaType": OCI_INDEX, "digest": f"{subject}", "size": len(APP.raw)},
    }
    return Image(manifests=(json.dumps(manifest).encode(),), blobs=(config, layer))


def index_above(referrer: Image) -> Image:
    child = {"mediaType": OCI_MANIFEST, "digest": f"{referrer.top}", "size": len(referrer.raw)}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    return replace(referrer, manifests=(*referrer.manifests, raw))


SBOM = artifact(APP.top)
ABOUT = {
    f"team/app:{tag_of(APP.top)}": index_above(SBOM),
    f"team/app:{tag_of(APP.top, '.sig')}": SIGNATURE,
    f"team/app:{tag_of(CHILD, '.att')}": ATTESTATION,
    f"team/app:{tag_of(SIGNATURE.top, '.sig')}": ABOVE,
}
STRANGERS = {f"team/app:{tag_of(Digest('0' * 64), '.sig')}": make_image("stranger"), "team/app:v2": OTHER}
IMAGES = {"team/app:v1": APP, **ABOUT, **STRANGERS}


@pytest.fixture
def host(tmp_path: Path, cli: Cli, loopback_registry: StartRegistry) -> str:
    (cli.directory / "images.list").write_text("team/app:v1\n")
    return loopback_registry(make_storage(tmp_path / "ci", IMAGES)).host


def inspected(cli: Cli, bundle: str) -> set[str]:
    done = cli("inspect", bundle, "--json")
    assert done.returncode == 0, done.stderr
    return {image["image"] for image in json.loads(done.stdout)["images"]}


def test_from_sync_to_deploy_and_push(tmp_path: Path, cli: Cli, host: str, loopback_registry: StartRegistry) -> None:
    wanted = {"team/app:v1", *ABOUT}
    done = cli("release", "images.list", "--source", host, "--referrers", "-o", "r.tar")
    assert done.returncode == 0, done.stderr
    assert inspected(cli, "r.tar") == wanted
    assert cli("verify", "r.tar", "--list", "images.list").returncode == 0
    assert cli("deploy", "r.tar", tmp_path / "site").returncode == 0
    pushed = loopback_registry(tmp_path / "pushed")
    assert cli("push", "r.tar", pushed.host).returncode == 0
    for root, served in ((tmp_path / "site", loopback_registry(tmp_path / "site").host), (pushed.root, pushed.host)):
        assert storage_problems(root) == set()
        assert {name: raw_digest(served, name) for name in wanted} == {n: str(IMAGES[n].top) for n in wanted}
    assert cli("verify", tmp_path / "site", "--list", "images.list").returncode == 0


def test_without_the_option_only_the_list_comes(cli: Cli, host: str) -> None:
    assert cli("release", "images.list", "--source", host, "-o", "r.tar").returncode == 0
    assert inspected(cli, "r.tar") == {"team/app:v1"}


def test_both_strategies_give_the_same_bytes(cli: Cli, host: str) -> None:
    sync = cli("sync", "images.list", "--source", host, "--referrers", "--archive", "./full")
    assert sync.returncode == 0, sync.stderr
    assert cli("sync", "images.list", "--source", host, "--archive", "./bare").returncode == 0
    for name, archive, strategy in (("one.tar", "./full", "select"), ("two.tar", "./bare", "overlay")):
        done = cli(
            "package", "images.list", "--source", host, "--history", archive, "--strategy", strategy, "--referrers",
            "-o", name,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (cli.directory / "one.tar").read_bytes() == (cli.directory / "two.tar").read_bytes()
    assert cli("gc", "./full", "--keep", "images.list").returncode == 0
    assert cli("package", "images.list", "--archive", "./full", "--referrers", "-o", "three.tar").returncode == 0
    assert (cli.directory / "one.tar").read_bytes() == (cli.directory / "three.tar").read_bytes()


def test_a_signature_that_failed_is_in_the_list_to_try_again(tmp_path: Path, cli: Cli, host: str) -> None:
    blob = tmp_path / "ci" / layout.blob_path(Digest.of(SIGNATURE.blobs[1]))
    kept = blob.read_bytes()
    blob.unlink()
    done = cli("sync", "images.list", "--source", host, "--referrers", "--archive", "./archive")
    assert done.returncode == 1
    assert f"team/app:{tag_of(APP.top, '.sig')}" in done.stderr
    blob.write_bytes(kept)
    assert cli("sync", "failed.list", "--source", host, "--archive", "./archive").returncode == 0
    assert storage_problems(cli.directory / "archive") == set()
    assert cli("package", "images.list", "--referrers", "--archive", "./archive", "-o", "r.tar").returncode == 0
    assert inspected(cli, "r.tar") == {"team/app:v1", *ABOUT}


def test_a_signature_of_an_image_that_is_not_here_is_a_stranger(cli: Cli, host: str) -> None:
    (cli.directory / "all.list").write_text("".join(f"{name}\n" for name in IMAGES))
    assert cli("release", "all.list", "--source", host, "-o", "all.tar").returncode == 0
    done = cli("verify", "all.tar", "--list", "images.list")
    assert done.returncode == 1
    assert [name for name in IMAGES if f"{name}: is not in the list" in done.stdout + done.stderr] == list(STRANGERS)


def test_referrers_of_a_registry_with_an_api_get_the_tag_that_others_look_for(
    tmp_path: Path, cli: Cli, loopback_registry: StartRegistry
) -> None:
    root = make_storage(tmp_path / "ci", {"team/app:v1": APP, "team/app:sbom": SBOM})
    shutil.rmtree(root / layout.tag_path("team/app", "sbom"))
    (cli.directory / "images.list").write_text("team/app:v1\n")
    dest = loopback_registry(tmp_path / "dest")
    with faulty_proxy(loopback_registry(root).host) as registry:
        child = {"mediaType": OCI_MANIFEST, "digest": f"{SBOM.top}", "size": len(SBOM.raw)}
        registry.referrers[f"{APP.top}"] = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
        for archive in ("./archive", f"http://{dest.host}"):
            done = cli("sync", "images.list", "--source", registry.host, "--archive", archive, "--referrers")
            assert done.returncode == 0, done.stderr
            again = cli("sync", "images.list", "--source", registry.host, "--archive", archive, "--referrers", "--json")
            assert len(json.loads(again.stdout)["skipped"]) == 2
    for root, served in (
        (cli.directory / "archive", loopback_registry(cli.directory / "archive").host),
        (dest.root, dest.host),
    ):
        assert storage_problems(root) == set()
        assert raw_digest(served, f"team/app@{SBOM.top}") == str(SBOM.top)
        assert raw_digest(served, f"team/app:{tag_of(APP.top)}") != str(SBOM.top)
