"""Signatures of images, made and checked by the real openssl: only the key's own, of this very digest, counts."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from regwrap.bundle.by_repository import ImageSource, StorageSource
from regwrap.bundle.examine import verify_bundle, verify_storage
from regwrap.bundle.opened import opened_image_set
from regwrap.commands.sync import SyncOptions, sync_images
from regwrap.commands.verify_signed import with_signatures
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.location import Location, Timeouts
from regwrap.core.manifest import OCI_INDEX
from regwrap.core.model import Digest
from regwrap.core.signed_rule import SignedRule
from regwrap.lists.imagelist import parse_images
from regwrap.storage.store import Storage
from regwrap.tools.openssl import Openssl, need_key
from regwrap.tools.retry import Retry, RetryPolicy
from regwrap.tools.runner import Runner
from regwrap.transfer.cosign import check_signed
from regwrap.transfer.job import Job
from tests.builders import Image, make_image, make_storage
from tests.bundles import contents_of, write_bundle
from tests.unit.commands.test_push import Quiet

pytestmark = pytest.mark.tools("openssl")
IMAGE, OTHER = make_image("app"), make_image("other")


@dataclass(frozen=True)
class Keys:
    """A vendor's key, and somebody else's."""

    place: Path

    def public(self, name: str) -> Path:
        return self.place / f"{name}.pub"

    def make(self, name: str) -> None:
        key = self.place / f"{name}.key"
        self._openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{key}")
        self._openssl("ec", "-in", f"{key}", "-pubout", "-out", f"{self.public(name)}")

    def sign(self, name: str, payload: bytes) -> bytes:
        (self.place / "payload").write_bytes(payload)
        return self._openssl("dgst", "-sha256", "-sign", f"{self.place / name}.key", f"{self.place / 'payload'}")

    def _openssl(self, *args: str) -> bytes:
        return subprocess.run(["openssl", *args], check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys"))
    made.make("vendor")
    made.make("else")
    return made


@pytest.fixture
def openssl(real_runner: Runner) -> Openssl:
    return Openssl(real_runner)


def payload_for(digest: Digest, kind: str = "cosign container image signature") -> bytes:
    critical = {
        "identity": {"docker-reference": "registry.example/any/name"},
        "image": {"docker-manifest-digest": f"{digest}"},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def signature_image(payload: bytes, signature: bytes, digest: Digest | None = None) -> Image:
    """What cosign pushes: a config that says nothing, and the payload as a layer. `digest` is what the manifest says of
    the payload, where that is not its own."""
    config = b"{}"
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "size": len(payload),
        "digest": f"{digest or Digest.of(payload)}",
        "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": f"{Digest.of(config)}",
        },
        "layers": [layer],
    }  # fmt: skip
    return Image(manifests=(json.dumps(manifest).encode(),), blobs=(config, payload))


def tag_of(image: Image) -> str:
    return f"sha256-{image.top.hex}.sig"


def signed(keys: Keys, name: str, about: Image = IMAGE) -> Image:
    payload = payload_for(about.top)
    return signature_image(payload, keys.sign(name, payload))


def source_of(root: Path) -> ImageSource:
    return StorageSource(name=f"{root}", storage=Storage(root))


def test_the_key_s_own_signature_of_the_image_counts(keys: Keys, openssl: Openssl, tmp_path: Path) -> None:
    root = make_storage(tmp_path / "site", {"app:1": IMAGE, f"app:{tag_of(IMAGE)}": signed(keys, "vendor")})
    check_signed(openssl, [keys.public("vendor")], source_of(root), "app", IMAGE.top)
    check_signed(openssl, [keys.public("else"), keys.public("vendor")], source_of(root), "app", IMAGE.top)
    with pytest.raises(IntegrityError, match=r"none of its 1 signatures is by else\.pub"):
        check_signed(openssl, [keys.public("else")], source_of(root), "app", IMAGE.top)
    with pytest.raises(IntegrityError, match="it has no signature"):
        check_signed(openssl, [keys.public("vendor")], source_of(root), "app", OTHER.top)


def test_a_referrer_counts_as_well(keys: Keys, openssl: Openssl, tmp_path: Path) -> None:
    signature = signed(keys, "vendor")
    child = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"{signature.top}",
        "size": len(signature.raw),
    }  # fmt: skip
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    referrers = Image(manifests=(*signature.manifests, index), blobs=signature.blobs)
    root = make_storage(tmp_path / "site", {"app:1": IMAGE, f"app:sha256-{IMAGE.top.hex}": referrers})
    check_signed(openssl, [keys.public("vendor")], source_of(root), "app", IMAGE.top)


def forgeries() -> Iterator[Callable[[Keys], Image]]:
    payload = payload_for(IMAGE.top)
    yield lambda keys: signed(keys, "else")
    yield lambda keys: signed(keys, "vendor", OTHER)  # of another image, under this one's tag
    yield lambda keys: signature_image(payload, keys.sign("vendor", payload_for(OTHER.top)))
    yield lambda keys: signature_image(payload + b" ", keys.sign("vendor", payload))
    yield lambda keys: signature_image(payload, keys.sign("vendor", payload)[:-1])
    yield lambda _keys: signature_image(payload, b"")
    yield lambda keys: signature_image(payload + b" ", keys.sign("vendor", payload), Digest.of(payload))
    wrong = payload_for(IMAGE.top, "something else")
    yield lambda keys: signature_image(wrong, keys.sign("vendor", wrong))
    nonsense = b"[]"
    yield lambda keys: signature_image(nonsense, keys.sign("vendor", nonsense))
    yield lambda _keys: OTHER  # no signature at all


@pytest.mark.parametrize("forge", list(forgeries()))
def test_what_is_forged_does_not_count(
    keys: Keys, openssl: Openssl, tmp_path: Path, forge: Callable[[Keys], Image]
) -> None:
    root = make_storage(tmp_path / "site", {"app:1": IMAGE, f"app:{tag_of(IMAGE)}": forge(keys)})
    with pytest.raises(IntegrityError, match="is not signed"):
        check_signed(openssl, [keys.public("vendor")], source_of(root), "app", IMAGE.top)


def test_a_site_proves_it_from_a_storage_and_a_bundle(keys: Keys, openssl: Openssl, tmp_path: Path) -> None:
    images = {"app:1": IMAGE, f"app:{tag_of(IMAGE)}": signed(keys, "vendor"), "other:1": OTHER}
    root = make_storage(tmp_path / "site", images)
    report = with_signatures(verify_storage(root, None, SILENT), source_of(root), openssl, [keys.public("vendor")])
    assert report.problems == (f"other:1: {OTHER.top.short} is not signed: it has no signature",)
    bundle = write_bundle(tmp_path / "v1.tar", contents_of(root, *images), root)
    with opened_image_set(bundle, lock_timeout=0, listener=Silent()) as image_set:
        checked = verify_bundle(bundle, None, SILENT)
        assert with_signatures(checked, image_set, openssl, [keys.public("vendor")]).problems == report.problems
        assert len(with_signatures(checked, image_set, openssl, [keys.public("else")]).problems) == 2


def test_a_key_that_is_none_is_told(keys: Keys) -> None:
    assert need_key(keys.public("vendor")) == keys.public("vendor")
    with pytest.raises(UsageError, match="no public key"):
        need_key(keys.place / "vendor.key")
    with pytest.raises(UsageError, match="cannot be read"):
        need_key(keys.place / "absent.pub")


def test_sync_refuses_what_is_not_signed_and_takes_the_signatures_with_it(
    keys: Keys, real_runner: Runner, tmp_path: Path
) -> None:
    source = make_storage(
        tmp_path / "source",
        {
            "vendor/app:1": IMAGE, f"vendor/app:{tag_of(IMAGE)}": signed(keys, "vendor"),
            "vendor/bad:1": OTHER, f"vendor/bad:{tag_of(OTHER)}": signed(keys, "else", OTHER), "free:1": OTHER,
        },
    )  # fmt: skip
    job = Job(
        runner=real_runner,
        scratch=real_runner.scratch,
        source=Location(name="source", storage=source),
        archive=Location(name="archive", storage=tmp_path / "archive"),
        location_of=lambda host: Location(name=host),
        jobs=2,
        retry=Retry(RetryPolicy(attempts=1, wait=0, max_wait=0), real_runner.stopping),
        timeouts=Timeouts(),
        environment=(),
        listener=Quiet(),
        signed=(SignedRule("vendor/*", (keys.public("vendor"),)),),
    )
    images = parse_images(b"vendor/app:1\nvendor/bad:1\nfree:1\n", "images.list")
    report = sync_images(job, images, SyncOptions()).report
    assert report is not None
    (failed,) = report.failed
    assert f"{failed.entry.dest}" == "vendor/bad:1"
    assert "none of its 1 signatures is by vendor.pub" in failed.error
    archive = Storage(tmp_path / "archive")
    assert archive.resolve("vendor/app", "1") == IMAGE.top
    assert archive.resolve("vendor/app", tag_of(IMAGE)) is not None
    assert archive.resolve("vendor/bad", "1") is None
    assert archive.resolve("free", "1") == OTHER.top
    again = sync_images(replace(job, signed=()), images, SyncOptions()).report
    assert again is not None
    assert again.failed == ()
