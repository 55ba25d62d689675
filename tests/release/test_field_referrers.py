"""Referrers are never lost in silence: an API that fails, one beside tags, attestations in the index."""

import json

import pytest

from regwrap.core.manifest import OCI_INDEX
from regwrap.core.model import Digest, subject_of_tag
from regwrap.storage.store import Storage
from tests.answering import Answer, Asked
from tests.builders import Image, make_image, make_multi_image, put
from tests.fieldregistry import JSON, FieldRegistry, field_registry, refusing
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

APP, SBOM, OLD = make_image("app"), make_image("sbom"), make_image("old")
QUICK = "retry: {attempts: 2, wait: 0, max_wait: 1}\n"
TAG = f"sha256-{APP.top.hex}"


def listed(*images: Image) -> Answer:
    children = [{"mediaType": OCI_INDEX, "digest": f"{image.top}", "size": len(image.raw)} for image in images]
    return Answer(200, JSON, json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode())


def synced(cli: Cli, registry: FieldRegistry, line: str = "team/app:v1") -> "tuple[int, str, Storage]":
    put(cli.directory / "regwrap.yaml", f"source: {registry.host}\n{QUICK}".encode())
    put(cli.directory / "images.list", f"{line}\nteam/other:v1\n".encode())
    done = cli("sync", "images.list", "--referrers")
    return done.returncode, done.stdout + done.stderr, Storage(cli.directory / "home/.local/share/regwrap/archive")


def images() -> dict[str, Image]:
    return {"team/app:v1": APP, "team/other:v1": make_image("other")}


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_an_api_that_fails_is_a_failed_line(cli: Cli, status: int) -> None:
    def hook(asked: Asked) -> Answer | None:
        if "/referrers/" not in asked.line:
            return None
        return refusing(status, "UNKNOWN") if f"{APP.top}" in asked.line else listed()

    with field_registry(images(), hook) as registry:
        code, said, _archive = synced(cli, registry)
    assert (code, "1 copied, 0 already there, 1 failed" in said) == (1, True), said
    assert "team/app:v1: FAILED, line 1: its referrers cannot be listed" in said
    assert (cli.directory / "failed.list").read_text().splitlines()[-1].startswith("team/app:v1")


def test_an_api_that_fails_once_is_asked_again(cli: Cli) -> None:
    failures = iter([refusing(503, "UNAVAILABLE")])

    def hook(asked: Asked) -> Answer | None:
        if "/referrers/" not in asked.line:
            return None
        return next(failures, listed(SBOM)) if f"{APP.top}" in asked.line else listed()

    with field_registry({**images(), "team/app:sbom": SBOM}, hook) as registry:
        code, said, archive = synced(cli, registry)
    assert code == 0, said
    assert archive.resolve("team/app", TAG) is not None


@pytest.mark.parametrize("has_api", [False, True])
def test_the_tag_counts_only_where_there_is_no_api(cli: Cli, *, has_api: bool) -> None:
    def hook(asked: Asked) -> Answer | None:
        if "/referrers/" not in asked.line:
            return None
        return listed(SBOM) if has_api and f"{APP.top}" in asked.line else (listed() if has_api else Answer(404))

    with field_registry({**images(), "team/app:sbom": SBOM, f"team/app:{TAG}": OLD}, hook) as registry:
        code, said, archive = synced(cli, registry)
    assert code == 0, said
    assert subject_of_tag(TAG) == APP.top
    assert (archive.resolve("team/app", TAG) == OLD.top) is not has_api


def test_the_attestations_of_the_platforms_that_are_kept_are_kept(cli: Cli) -> None:
    multi, document = make_multi_image("multi"), json.loads(make_multi_image("multi").raw)
    seals = [make_image(f"seal {number}") for number in range(2)]
    for child, seal in zip(list(document["manifests"]), seals, strict=True):
        document["manifests"].append(
            {
                "mediaType": child["mediaType"],
                "digest": f"{seal.top}",
                "size": len(seal.raw),
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.digest": child["digest"]},
            }
        )
    manifests = (*multi.manifests[:-1], *(seal.raw for seal in seals), json.dumps(document).encode())
    image = Image(manifests=manifests, blobs=(*multi.blobs, *(blob for seal in seals for blob in seal.blobs)))
    with field_registry({"team/app:v1": image, "team/other:v1": make_image("other")}) as registry:
        code, said, archive = synced(cli, registry, "team/app:v1 platform=linux/amd64")
    assert code == 0, said
    assert [archive.has_revision("team/app", seal.top) for seal in seals] == [True, False]
    assert not archive.has_revision("team/app", Digest.of(multi.manifests[1]))
