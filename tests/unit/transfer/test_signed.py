"""Signatures of images: whose counts, of what, and what becomes of an image that none of the keys has signed.

openssl only answers from a script here: a signature is good where it says the key's name and the payload's digest.
tests/tools has the real one.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regwrap.bundle.by_repository import StorageSource
from regwrap.bundle.examine import VerifyReport, verify_storage
from regwrap.bundle.inventory import NOTHING, FoundImage
from regwrap.commands.sync import SyncOptions
from regwrap.commands.verify_signed import with_signatures
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import Silent
from regwrap.core.manifest import OCI_INDEX, OCI_MANIFEST
from regwrap.core.model import Digest
from regwrap.core.signed_rule import SignedRule
from regwrap.lists.imagelist import parse_images
from regwrap.storage import layout
from regwrap.storage.store import Storage
from regwrap.tools.openssl import Openssl
from regwrap.transfer.cosign import check_signed, signed_digest
from regwrap.transfer.job import Job
from regwrap.transfer.signed import with_their_signatures_there
from tests.builders import Image, make_image, make_multi_image, make_storage, put
from tests.fakes import Answer, Argv, Scripted
from tests.unit.cli.programs import curl
from tests.unit.transfer.between import Between, between

IMAGE, OTHER = make_image("app"), make_image("other")
LOST = Digest("0" * 64)
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN = "cosign container image signature"


def payload_for(digest: Digest, kind: str = COSIGN) -> bytes:
    image = {"docker-manifest-digest": f"{digest}"}
    return json.dumps({"critical": {"image": image, "type": kind}, "optional": None}).encode()


def by(key: str, payload: bytes) -> bytes:
    return f"{key} {Digest.of(payload)}".encode()


def layer_of(payload: bytes, signature: bytes, **other: object) -> dict[str, Any]:
    annotations = {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}
    layer = {"mediaType": PAYLOAD_TYPE, "size": len(payload), "digest": f"{Digest.of(payload)}"}
    return {**layer, "annotations": annotations, **other}


def holding(*layers: tuple[bytes, dict[str, Any]]) -> Image:
    """What cosign pushes: a config that says nothing, and payloads as layers."""
    config = b"{}"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": 2,
            "digest": f"{Digest.of(config)}",
        },
        "layers": [layer for _payload, layer in layers],
    }
    blobs = dict.fromkeys((config, *(payload for payload, _layer in layers)))
    return Image(manifests=(json.dumps(document).encode(),), blobs=tuple(blobs))


def signature(key: str, about: Digest) -> Image:
    payload = payload_for(about)
    return holding((payload, layer_of(payload, by(key, payload))))


def tag_of(subject: Digest, suffix: str = ".sig") -> str:
    return f"sha256-{subject.hex}{suffix}"


def is_good(argv: Argv) -> bool:
    """openssl dgst -sha256 -verify KEY -signature FILE PAYLOAD."""
    if argv[0] != "openssl":
        return False
    key, signed, payload = Path(argv[4]), Path(argv[6]).read_bytes(), Path(argv[7]).read_bytes()
    return argv[1:4] == ("dgst", "-sha256", "-verify") and signed == by(key.stem, payload)


def script(scripted: Scripted) -> None:
    scripted.launcher.answers += [
        Answer(when=is_good, stdout=b"Verified OK\n", repeats=True),
        Answer(when=("openssl",), stdout=b"Verification failure\n", exit_code=1, repeats=True),
    ]


@pytest.fixture
def vendor(tmp_path: Path) -> Path:
    return put(tmp_path / "keys/vendor.pub", b"-----BEGIN PUBLIC KEY-----\n")


@pytest.fixture
def openssl(scripted: Scripted) -> Openssl:
    script(scripted)
    return Openssl(scripted.runner)


def source_with(tmp_path: Path, images: dict[str, Image]) -> StorageSource:
    root = make_storage(tmp_path / "site", images)
    return StorageSource(name=f"{root}", storage=Storage(root))


def index_about(*children: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()


def child_of(image: Image) -> dict[str, object]:
    return {"mediaType": OCI_MANIFEST, "digest": f"{image.top}", "size": len(image.raw)}


def test_the_key_s_own_signature_counts_and_none_is_told_apart_from_another_s(
    openssl: Openssl, vendor: Path, tmp_path: Path
) -> None:
    source = source_with(tmp_path, {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": signature("vendor", IMAGE.top)})
    others = vendor.with_name("else.pub"), vendor.with_name("third.pub")
    check_signed(openssl, [vendor], source, "app", IMAGE.top)
    check_signed(openssl, [*others, vendor], source, "app", IMAGE.top)
    with pytest.raises(IntegrityError, match=r"is not signed: none of its 1 signatures is by else.pub, third.pub$"):
        check_signed(openssl, others, source, "app", IMAGE.top)
    with pytest.raises(IntegrityError, match=f"^{OTHER.top.short} is not signed: it has no signature$") as raised:
        check_signed(openssl, [vendor], source, "app", OTHER.top)
    assert f"app@{OTHER.top}" in raised.value.hint


def test_one_right_signature_among_others_is_enough(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    payload, wrong = payload_for(IMAGE.top), payload_for(OTHER.top)
    layers: list[tuple[bytes, dict[str, Any]]] = [
        (b"x", layer_of(b"x", b"", mediaType="text/plain")),
        (b"y", {**layer_of(b"y", b""), "annotations": None}),
        (b"z", {**layer_of(b"z", b""), "annotations": {"dev.cosignproject.cosign/signature": "no base64!"}}),
        (wrong, layer_of(wrong, by("vendor", wrong))),
        (payload + b" ", layer_of(payload + b" ", by("else", payload))),
        (payload, layer_of(payload, by("vendor", payload))),
    ]
    images = {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": holding(*layers)}
    check_signed(openssl, [vendor], source_with(tmp_path, images), "app", IMAGE.top)
    images = {"bad:1": IMAGE, f"bad:{tag_of(IMAGE.top)}": holding(*layers[:-1])}
    with pytest.raises(IntegrityError, match="none of its 2 signatures"):
        check_signed(openssl, [vendor], source_with(tmp_path, images), "bad", IMAGE.top)


def forgeries() -> Iterator[tuple[str, Image]]:
    payload = payload_for(IMAGE.top)
    good = by("vendor", payload)
    yield "by another key", signature("else", IMAGE.top)
    yield "of another image", signature("vendor", OTHER.top)
    yield "of other bytes", holding((payload + b" ", layer_of(payload + b" ", good)))
    yield "none", holding((payload, layer_of(payload, b"")))
    yield "a payload of other bytes", holding((payload + b" ", {**layer_of(payload, good)}))
    for wrong in (payload_for(IMAGE.top, "something else"), b"[]", b"{", b"\xff", b'{"critical": {}}', b"[" * 100_000):
        yield f"payload {wrong[:20]!r}", holding((wrong, layer_of(wrong, by("vendor", wrong))))
    yield "no signature at all", OTHER
    yield "no list of layers", Image((b'{"layers": 5}',), ())
    yield "no JSON", Image((b"{",), ())
    yield "deep", Image((b"[" * 100_000,), ())


@pytest.mark.parametrize("forged", [image for _what, image in forgeries()], ids=[what for what, _image in forgeries()])
def test_what_is_forged_does_not_count(openssl: Openssl, vendor: Path, tmp_path: Path, forged: Image) -> None:
    source = source_with(tmp_path, {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": forged})
    with pytest.raises(IntegrityError, match="is not signed"):
        check_signed(openssl, [vendor], source, "app", IMAGE.top)


def test_a_signature_s_manifest_of_other_bytes_does_not_count(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    good = signature("vendor", IMAGE.top)
    source = source_with(tmp_path, {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": good})
    source.storage.blob_path(good.top).write_bytes(good.raw + b" ")
    with pytest.raises(IntegrityError, match="it has no signature"):
        check_signed(openssl, [vendor], source, "app", IMAGE.top)


def test_a_damaged_signature_hides_no_sound_one(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    damaged, good = signature("else", IMAGE.top), signature("vendor", IMAGE.top)
    listed = Image((*good.manifests, index_about(child_of(OTHER), child_of(good))), good.blobs)
    images = {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": damaged, f"app:{tag_of(IMAGE.top, '')}": listed}
    source = source_with(tmp_path, images)
    source.storage.blob_path(damaged.top).write_bytes(damaged.raw + b" ")
    check_signed(openssl, [vendor], source, "app", IMAGE.top)


def test_a_payload_of_no_bytes_is_no_signature(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    empty = holding((b"", layer_of(b"", by("vendor", b""))))
    source = source_with(tmp_path, {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": empty})
    with pytest.raises(IntegrityError, match="it has no signature"):
        check_signed(openssl, [vendor], source, "app", IMAGE.top)


def test_what_a_payload_is_about() -> None:
    assert signed_digest(payload_for(IMAGE.top)) == IMAGE.top
    assert signed_digest(payload_for(IMAGE.top, "else")) is None
    assert signed_digest(b"{") is None


def test_no_more_than_a_hundred_are_looked_at(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    """Who may push tags may make a check last for hours otherwise."""
    payload = payload_for(IMAGE.top)
    other = payload_for(OTHER.top)
    wrong = [(other, layer_of(other, b"x"))] * 99
    right = [(payload, layer_of(payload, by("vendor", payload)))]
    tag = tag_of(IMAGE.top)
    source = source_with(tmp_path, {"a:1": IMAGE, f"a:{tag}": holding(*wrong, *right)})
    check_signed(openssl, [vendor], source, "a", IMAGE.top)
    source = source_with(tmp_path, {"b:1": IMAGE, f"b:{tag}": holding(*wrong, *wrong[:1], *right, *right)})
    with pytest.raises(IntegrityError, match="none of its 100 signatures"):
        check_signed(openssl, [vendor], source, "b", IMAGE.top)


def test_a_referrer_s_index_counts_as_well(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    good = signature("vendor", IMAGE.top)
    index = index_about("no descriptor", {"digest": "no digest"}, child_of(good))
    images = {"app:1": IMAGE, f"app:{tag_of(IMAGE.top, '')}": Image((*good.manifests, index), good.blobs)}
    check_signed(openssl, [vendor], source_with(tmp_path, images), "app", IMAGE.top)
    for text in (b"{", b'{"manifests": 5}', b"[" * 100_000):
        odd = source_with(tmp_path, {"odd:1": IMAGE, f"odd:{tag_of(IMAGE.top, '')}": Image((text,), ())})
        with pytest.raises(IntegrityError, match="it has no signature"):
            check_signed(openssl, [vendor], odd, "odd", IMAGE.top)


# --- what is about an image


@pytest.mark.parametrize("suffix", ["", ".sig", ".x"])
def test_only_what_is_about_an_image_that_is_there_needs_no_signature(
    openssl: Openssl, vendor: Path, tmp_path: Path, suffix: str
) -> None:
    """A tag is easily chosen: what is called a signature of nothing, or of what is elsewhere, is an image, and so is
    what can run."""
    names = [f"app:{tag_of(LOST, suffix)}", f"other:{tag_of(IMAGE.top, suffix)}"]
    right = {"app:1": IMAGE, f"app:{tag_of(IMAGE.top)}": signature("vendor", IMAGE.top)}
    names.append(f"app:{tag_of(IMAGE.top, '.exe')}")
    artifact = signature("vendor", LOST)
    images = {**right, f"app:{tag_of(IMAGE.top, '.sbom')}": artifact, **dict.fromkeys(names, OTHER)}
    for prefix in ("", "p/q"):
        root = make_storage(tmp_path / f"site{prefix}", {f"{prefix}/{k}".lstrip("/"): v for k, v in images.items()})
        source = StorageSource(name="site", storage=Storage(root))
        found = [
            FoundImage(image=name, digest=image.top, platforms=(), partial=False, blobs=frozenset())
            for name, image in images.items()
        ]
        report = VerifyReport(
            path=root, images=0, blobs=0, bytes=0, problems=(), inventory=replace(NOTHING, images=tuple(found))
        )
        told = with_signatures(report, source, openssl, [vendor], prefix=prefix).problems
        assert told == tuple(f"{name}: {OTHER.top.short} is not signed: it has no signature" for name in names)


def test_an_image_that_only_seems_to_be_there_is_not(openssl: Openssl, vendor: Path, tmp_path: Path) -> None:
    """A registry gives any bytes for a digest."""
    name = f"app:{tag_of(LOST)}"
    source = source_with(tmp_path, {name: OTHER})
    put(source.storage.root / layout.revision_link("app", LOST), f"{LOST}".encode())
    put(source.storage.root / layout.blob_path(LOST), IMAGE.raw)
    assert source.manifest("app", LOST) == IMAGE.raw
    report = verify_storage(source.storage.root, None, Silent())
    (said,) = set(with_signatures(report, source, openssl, [vendor]).problems) - set(report.problems)
    assert said.startswith(f"{name}: {OTHER.top.short} is not signed")


# --- in a sync


@pytest.fixture
def two(scripted: Scripted, tmp_path: Path) -> Iterator[Between]:
    with between(scripted, tmp_path / "root") as found:
        script(scripted)
        scripted.launcher.answers.append(curl())
        found.source.hold("vendor/app:1", IMAGE)
        found.source.hold("free:1", OTHER)
        yield found


def demanding(two: Between, *rules: SignedRule) -> Job:
    return replace(two.job(archive=two.directory), signed=rules)


@pytest.mark.slow
def test_what_has_to_be_signed_comes_only_so_and_with_its_signature(two: Between, vendor: Path) -> None:
    two.source.hold("vendor/bad:1", OTHER)
    two.source.hold(f"vendor/bad:{tag_of(OTHER.top)}", signature("else", OTHER.top))
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("vendor", IMAGE.top))
    job = demanding(two, SignedRule("vendor/*", (vendor,)))
    report = two.run(job, "vendor/app:1", "vendor/bad:1", "free:1").report
    assert report is not None
    (failed,) = report.failed
    assert f"{failed.entry.dest}" == "vendor/bad:1"
    assert "none of its 1 signatures is by vendor.pub" in failed.error
    assert "cosign sign" in failed.hint
    assert two.storage.tags("free") == ("1",)
    assert two.storage.tags("vendor/app") == ("1", tag_of(IMAGE.top))
    assert two.storage.resolve("vendor/bad", "1") is None


def test_what_has_to_be_signed_does_not_come_without_what_is_about_it(two: Between, vendor: Path) -> None:
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("vendor", IMAGE.top))
    two.source.fails = lambda request: 500 if "/tags/list" in request else None
    report = two.run(demanding(two, SignedRule("vendor/*", (vendor,))), "vendor/app:1", "free:1").report
    assert report is not None
    (failed,) = report.failed
    assert failed.error.startswith("its referrers cannot be listed: ")
    assert [f"{item.copy.entry.dest}" for item in report.copied] == ["free:1"]
    assert two.storage.resolve("vendor/app", "1") is None


@pytest.mark.slow
def test_a_referrer_that_the_registry_s_api_lists_counts(two: Between, vendor: Path) -> None:
    good = signature("vendor", IMAGE.top)
    two.source.hold("vendor/app:hidden", good)
    two.source.referrers = {f"{IMAGE.top}": [child_of(good)]}
    two.sync(demanding(two, SignedRule("vendor/*", (vendor,))), "vendor/app:1")
    assert two.storage.resolve("vendor/app", "1") == IMAGE.top


@pytest.mark.parametrize("match", ["site/app", "vendor/app", "127.0.0.1:*/vendor/app"])
def test_a_rule_means_an_image_by_each_of_its_names(two: Between, vendor: Path, match: str) -> None:
    """Under another name it would come unsigned."""
    line = f"{two.source.host}/vendor/app:1 => site/app:1"
    said = two.seen(demanding(two, SignedRule(match, (vendor,))), line)
    assert "it has no signature" in said.error


@pytest.mark.slow
def test_of_several_rules_any_key_is_good(two: Between, vendor: Path) -> None:
    other = put(vendor.with_name("other.pub"), vendor.read_bytes())
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("other", IMAGE.top))
    job = demanding(two, SignedRule("no/*", (vendor,)), SignedRule("vendor/*", (vendor,)), SignedRule("*", (other,)))
    assert len(two.run(job, "vendor/app:1").plan.copies) == 2


def test_nothing_comes_but_what_was_found_signed(two: Between, vendor: Path) -> None:
    """A tag that moves between the look and the copy would bring what nobody signed."""
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("vendor", IMAGE.top))

    def move(request: str) -> None:
        if request.startswith("GET /v2/vendor/app/blobs"):
            two.source.hold("vendor/app:1", OTHER)

    two.source.fails = move
    said = two.failure(demanding(two, SignedRule("vendor/*", (vendor,))), "vendor/app:1")
    assert f"is {OTHER.top} now, the list says {IMAGE.top}" in said
    assert two.storage.resolve("vendor/app", "1") is None


@pytest.mark.parametrize("text", [b"-----BEGIN PRIVATE KEY-----\n", None])
def test_what_is_no_key_ends_the_run_before_anything_comes(two: Between, vendor: Path, text: bytes | None) -> None:
    vendor.unlink()
    if text is not None:
        vendor.write_bytes(text)
    with pytest.raises(UsageError, match=f"{vendor}"):
        two.run(demanding(two, SignedRule("vendor/*", (vendor,))), "vendor/app:1")
    assert two.source.asked("^GET .*/blobs/") == []


def test_a_listed_image_that_is_called_a_signature_of_nothing_has_to_be_signed(two: Between, vendor: Path) -> None:
    two.source.hold(f"vendor/app:{tag_of(LOST)}", OTHER)
    said = two.seen(demanding(two, SignedRule("vendor/*", (vendor,))), f"vendor/app:{tag_of(LOST)}")
    assert "it has no signature" in said.error


def test_an_image_that_can_run_has_to_be_signed_whatever_its_tag_says(two: Between, vendor: Path) -> None:
    """Under the name of what is about a real image, it would be that vendor's."""
    two.source.hold("vendor/app:1", IMAGE)
    two.source.hold(f"vendor/app:sha256-{IMAGE.top.hex}.sbom", OTHER)
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("vendor", IMAGE.top))
    lines = ("vendor/app:1", f"vendor/app:sha256-{IMAGE.top.hex}.sbom")
    report = two.run(demanding(two, SignedRule("vendor/*", (vendor,))), *lines).report
    assert report is not None
    assert [(f"{item.entry.dest}", "it has no signature" in item.error) for item in report.failed] == [(lines[1], True)]


def test_signatures_of_a_platform_s_image_come_unsigned(two: Between, vendor: Path) -> None:
    """The list has no more than the index."""
    multi = make_multi_image("multi")
    child = Digest.of(multi.manifests[0])
    assert child != multi.top
    names = [f"vendor/app:{tag_of(digest)}" for digest in (child, multi.top)]
    two.source.hold("vendor/app:1", multi)
    for name, digest in zip(names, (child, multi.top), strict=True):
        two.source.hold(name, signature("vendor", digest))
    two.sync(demanding(two, SignedRule("vendor/*", (vendor,))), "vendor/app:1")
    assert {f"vendor/app:{tag}" for tag in two.storage.tags("vendor/app")} == {"vendor/app:1", *names}


@pytest.mark.slow
def test_signatures_that_are_asked_for_come_unsigned(two: Between, vendor: Path) -> None:
    """A signature of a signature nobody makes."""
    two.source.hold(f"vendor/app:{tag_of(IMAGE.top)}", signature("vendor", IMAGE.top))
    job = demanding(two, SignedRule("vendor/*", (vendor,)))
    two.sync(job, "vendor/app:1", f"vendor/app:{tag_of(IMAGE.top)}", options=SyncOptions(referrers=True))
    assert two.storage.tags("vendor/app") == ("1", tag_of(IMAGE.top))


def test_of_what_is_there_already_signatures_join_only_what_has_to_be_signed(two: Between, vendor: Path) -> None:
    good = signature("vendor", IMAGE.top)
    images = {"vendor/app:1": IMAGE, f"vendor/app:{tag_of(IMAGE.top)}": good, "free:1": OTHER}
    images[f"free:{tag_of(OTHER.top)}"] = signature("vendor", OTHER.top)
    make_storage(two.root, images)
    lines = parse_images(b"vendor/app:1\nfree:1\n", "images.list")
    job = demanding(two, SignedRule("vendor/*", (vendor,)))
    found = with_their_signatures_there(job, two.storage, lines)
    assert [f"{entry.dest}" for entry in found.entries] == [
        "vendor/app:1", "free:1", f"vendor/app:{tag_of(IMAGE.top)}",
    ]  # fmt: skip
    assert with_their_signatures_there(two.job(), two.storage, lines) == lines
