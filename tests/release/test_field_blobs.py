"""What registries and blob stores answer to who fetches blobs: ranges, lengths, encodings, logins and addresses that
are odd. The beginning of each layer is there from an earlier run."""

import json
import re
from collections.abc import Callable

import pytest

from regwrap.core.model import Digest
from tests.answering import Answer, Asked, answering
from tests.builders import make_image, put, storage_problems
from tests.fieldregistry import FieldRegistry, field_registry, login, refusing
from tests.release.regwrap_cli import Cli

pytestmark = pytest.mark.tools

BEGUN = 40
WHOLE = {"Content-Type": "application/octet-stream"}


def ranged(blob: bytes, first: int, *, sent_from: int) -> Answer:
    headers = {"Content-Range": f"bytes {first}-{len(blob) - 1}/{len(blob)}"}
    return Answer(206, headers, blob[sent_from:])


ODD: dict[str, Callable[[bytes, Asked], Answer | None]] = {
    "ignores-ranges": lambda blob, _asked: Answer(200, WHOLE, blob),
    "other-range": lambda blob, _asked: ranged(blob, 0, sent_from=0),
    "lies-about-range": lambda blob, asked: ranged(blob, BEGUN, sent_from=0) if "range" in asked.headers else None,
    "refuses-ranges": lambda _blob, asked: Answer(416) if "range" in asked.headers else None,
    "says-gzip": lambda blob, _asked: Answer(200, {**WHOLE, "Content-Encoding": "gzip"}, blob),
    "says-more": lambda blob, _asked: Answer(200, {"Content-Length": f"{len(blob) + 7}"}, blob, cut=len(blob)),
    "wants-login": lambda _blob, asked: (
        None
        if asked.authorization == f"Basic {login('ci:secret')}"
        else refusing(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="tests"')
    ),
    "knows-no-head": lambda _blob, asked: Answer(405) if asked.line.startswith("HEAD") else None,
}


def configure(cli: Cli, registry: FieldRegistry, names: list[str]) -> None:
    put(cli.directory / "auth.json", json.dumps({"auths": {registry.host: {"auth": login("ci:secret")}}}).encode())
    settings = f"registries:\n  r: {{url: http://{registry.host}, authfile: auth.json}}\nsource: r\n"
    put(cli.directory / "regwrap.yaml", f"{settings}retry: {{attempts: 3, wait: 0, max_wait: 0.1}}\n".encode())
    put(cli.directory / "images.list", "".join(f"{name}/app:v1\n" for name in names).encode())


def test_what_blob_stores_answer_oddly_is_fetched_all_the_same(cli: Cli) -> None:
    """All kinds in one run; one leads to a store of its own, where the login has no business."""
    images = {f"{name}/app:v1": make_image(name) for name in (*ODD, "leads-away")}
    archive = cli.directory / "home/.local/share/regwrap/archive"
    kept: dict[str, bytes] = {}

    def stored(asked: Asked) -> Answer:
        return Answer(200, WHOLE, kept[asked.line.split()[1].strip("/")])

    with answering(stored) as store:

        def hook(asked: Asked) -> Answer | None:
            match = re.search(r" /v2/(\S+)/(?:blobs/(sha256:\S+)|manifests/)", asked.line)
            if match is None or (match[2] is None and asked.line.startswith("GET")):
                return None
            name, key = match[1].removesuffix("/app"), f"{match[1]}@{match[2]}"
            if name == "leads-away" and match[2]:
                kept[match[2]] = registry.blobs[key]
                return Answer(307, {"Location": f"http://{store.host}/{match[2]}"})
            if match[2] is None and name != "knows-no-head":
                return None
            return ODD[name](registry.blobs.get(key, b""), asked) if name in ODD else None

        with field_registry(images, hook) as registry:
            for image in images.values():
                part = archive / f".regwrap/sync/parts/{Digest.of(image.blobs[1]).hex}"
                put(part, image.blobs[1][:BEGUN])
            configure(cli, registry, [*ODD, "leads-away"])
            done = cli("sync", "images.list")
        assert {asked.authorization for asked in store.asked} == {""}
    assert f"{len(images)} copied" in done.stdout, done.stderr
    assert "retrying" not in done.stderr.replace("lies-about-range/app:v1: attempt 1 failed, retrying", "")
    assert storage_problems(archive) == set()


def test_a_blob_that_is_shorter_than_its_manifest_says_is_no_endless_story(cli: Cli) -> None:
    def hook(asked: Asked) -> Answer | None:
        match = re.search(r"^GET /v2/team/app/blobs/(\S+)", asked.line)
        return Answer(200, WHOLE, registry.blobs[f"team/app@{match[1]}"][:-1]) if match else None

    with field_registry({"team/app:v1": make_image("app")}, hook) as registry:
        configure(cli, registry, ["team"])
        done = cli("sync", "images.list")
        assert len([line for line in registry.lines if "/blobs/" in line]) <= 6
    assert done.returncode == 1
    assert "arrived damaged" in done.stderr


def test_an_empty_layer_is_a_layer(cli: Cli) -> None:
    with field_registry({"team/app:v1": make_image("app", layers=[b""])}) as registry:
        configure(cli, registry, ["team"])
        done = cli("sync", "images.list")
    assert "1 copied" in done.stdout, done.stderr
    assert storage_problems(cli.directory / "home/.local/share/regwrap/archive") == set()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_one_cause_of_blobs_that_do_not_come_is_told_once(cli: Cli, status: int) -> None:
    names = [f"n{number}" for number in range(8)]
    images = {f"{name}/app:v1": make_image(name) for name in names}
    challenge = {"WWW_Authenticate": 'Basic realm="tests"'} if status == 401 else {}

    def hook(asked: Asked) -> Answer | None:
        return refusing(status, "UNKNOWN", **challenge) if "/blobs/" in asked.line else None

    with field_registry(images, hook) as registry:
        configure(cli, registry, names)
        put(cli.directory / "images.list", "".join(f"{name}\n" for name in images).encode())
        done = cli("sync", "images.list")
        sent = [asked for asked in registry.server.asked if asked.authorization and "/blobs/" in asked.line]
    told = [line for line in done.stderr.splitlines() if "FAILED (" in line and "images" in line]
    assert done.returncode == 1
    assert len(told) == 1, done.stderr
    assert "8 images FAILED (n0/app:v1 n1/app:v1 n2/app:v1 and 5 more): " in told[0]
    assert done.stderr.count(": FAILED, as n") >= 2
    if status == 401:
        assert len(sent) <= 3  # accounts are locked by more
