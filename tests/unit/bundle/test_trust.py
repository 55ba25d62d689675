"""Whether a release is trusted is asked before the first blob is read, wherever a bundle is opened."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from regwrap.bundle.delta import since
from regwrap.bundle.examine import verify_bundle
from regwrap.bundle.examine_incoming import Arrival, verify_incoming
from regwrap.bundle.merge import ImportOptions
from regwrap.bundle.opened import opened_contents
from regwrap.bundle.read import opened_bundle
from regwrap.cli.signing import check_signing, trusting
from regwrap.commands.deploy import deploy_bundle, deploy_incoming
from regwrap.core.errors import IntegrityError, UsageError
from regwrap.core.listener import SILENT, Silent
from regwrap.core.model import Digest
from regwrap.core.moves import Existing
from tests.builders import make_image, make_storage
from tests.bundles import contents_of, older, write_bundle

IMAGE = make_image("app")


def refuse(release: Digest) -> None:
    raise IntegrityError(f"nobody signed {release}")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Its only layer is damaged, so that whoever reads blobs first would say something else."""
    root = make_storage(tmp_path / "archive", {"app:1": IMAGE})
    path = write_bundle(tmp_path / "v1.tar", contents_of(root, "app:1"), root)
    path.write_bytes(path.read_bytes().replace(IMAGE.raw, bytes(len(IMAGE.raw))))
    return path


def test_what_is_not_trusted_is_not_read(bundle: Path, tmp_path: Path) -> None:
    options = ImportOptions(existing=Existing.FAIL, dry_run=False, lock_timeout=0, trust=refuse)
    data = bundle.read_bytes()
    for look in (
        lambda: verify_bundle(bundle, None, SILENT, trust=refuse),
        lambda: verify_incoming(io.BytesIO(data), None, SILENT, (), Arrival(trust=refuse)),
        lambda: deploy_bundle(bundle, tmp_path / "site", options, Silent()),
        lambda: deploy_incoming(io.BytesIO(data), Path("-"), tmp_path / "site", options, Silent()),
        lambda: opened_contents(bundle, hashed=True, listener=Silent(), trust=refuse).__enter__(),
    ):
        with pytest.raises(IntegrityError, match="nobody signed"):
            look()
    assert not (tmp_path / "site").exists()


def test_a_delta_is_asked_for_as_the_release_that_it_is(tmp_path: Path) -> None:
    images = {"app:1": IMAGE, "app:2": make_image("two")}
    root = make_storage(tmp_path / "archive", images)
    whole = replace(contents_of(root, *images), name="acme-2")
    delta = write_bundle(tmp_path / "d.tar", since(whole, [older(contents_of(root, "app:1"))]), root)
    asked = list[Digest]()
    with opened_bundle(delta, asked.append):
        pass
    with opened_bundle(write_bundle(tmp_path / "v2.tar", whole, root), asked.append):
        pass
    assert asked == [whole.id, whole.id]


def test_what_can_not_be_is_said_first(tmp_path: Path) -> None:
    key = tmp_path / "key"
    with pytest.raises(UsageError, match="is not a file"):
        check_signing(key, tmp_path / "v1.tar", None)
    key.touch()
    check_signing(key, tmp_path / "v1.tar", None)
    with pytest.raises(UsageError, match="needs a file"):
        check_signing(key, Path("-"), None)
    check_signing(key, Path("-"), tmp_path / "v1.sig")
    with pytest.raises(UsageError, match="--sign-key"):
        check_signing(None, tmp_path / "v1.tar", tmp_path / "v1.sig")
    progress = Silent()
    for path, signers, signature in ((tmp_path / "v1.tar", None, key), (Path("-"), key, None)):
        with pytest.raises(UsageError), trusting(path, signers, signature, progress, configured=None):
            pass
    with trusting(tmp_path / "v1.tar", None, None, progress, configured=None) as trust:
        assert trust is None
