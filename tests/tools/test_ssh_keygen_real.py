"""Signatures by the real ssh-keygen: only a signer's, of this very text, counts."""

import os
import time
from pathlib import Path

import pytest

from regwrap.commands.sign import CheckedSignature, sign_release
from regwrap.core.errors import IntegrityError, ToolError, UsageError
from regwrap.core.model import Digest
from regwrap.tools.runner import Command, Runner, Tool
from regwrap.tools.ssh_keygen import SshKeygen

pytestmark = pytest.mark.tools("ssh-keygen")
RELEASE, OTHER = Digest.of(b"release"), Digest.of(b"other")


@pytest.fixture
def ssh(real_runner: Runner) -> SshKeygen:
    return SshKeygen(real_runner, agent="")


def make_key(ssh: SshKeygen, path: Path, *, passphrase: str = "") -> str:
    """The public key."""
    ssh.runner.run(
        Command(tool=Tool.SSH_KEYGEN, args=("-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", f"{path}"))
    )
    return path.with_name(f"{path.name}.pub").read_text().strip()


def test_what_a_signer_has_signed_is_trusted_and_nothing_else(ssh: SshKeygen, tmp_path: Path) -> None:
    said = list[str]()
    mine, theirs = (make_key(ssh, tmp_path / name) for name in ("mine", "theirs"))
    signers = tmp_path / "signers"
    signers.write_text(f"release@acme {mine}\n")
    signature = tmp_path / "v1.tar.sig"
    trust = CheckedSignature(ssh, signers, signature, said.append)
    with pytest.raises(IntegrityError, match="is not signed"):
        trust(RELEASE)
    sign_release(ssh, tmp_path / "mine", RELEASE, signature)
    trust(RELEASE)
    assert said == ["signed by release@acme"]
    with pytest.raises(IntegrityError, match="no signature of"):
        trust(OTHER)
    for text in ("", "nonsense", signature.read_text().replace("A", "B", 3), f"else {theirs}"):
        tampered = tmp_path / "tampered.sig"
        tampered.write_text(text)
        with pytest.raises(IntegrityError):
            CheckedSignature(ssh, signers, tampered, said.append)(RELEASE)
    signers.write_text(f"release@acme {theirs}\n")
    with pytest.raises(IntegrityError, match="no signature of"):
        trust(RELEASE)
    signers.write_text(f'release@acme namespaces="file" {mine}\n')
    with pytest.raises(IntegrityError, match="no signature of"):
        trust(RELEASE)
    signers.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        trust(RELEASE)


def test_what_is_too_long_for_a_signature_is_not_given_to_ssh_keygen(ssh: SshKeygen, tmp_path: Path) -> None:
    """Which would read it to its end, for minutes."""
    signers, endless = tmp_path / "signers", tmp_path / "v1.tar.sig"
    signers.write_text(f"release@acme {make_key(ssh, tmp_path / 'mine')}\n")
    endless.write_text("-----BEGIN SSH SIGNATURE-----\n")
    os.truncate(endless, 100 * 1024**3)
    said, started = list[str](), time.monotonic()
    with pytest.raises(IntegrityError, match="no signature of"):
        CheckedSignature(ssh, signers, endless, said.append)(RELEASE)
    assert time.monotonic() - started < 30


def test_a_key_that_nobody_unlocks_does_not_wait_for_an_answer(ssh: SshKeygen, tmp_path: Path) -> None:
    make_key(ssh, tmp_path / "locked", passphrase="secret")
    with pytest.raises(ToolError, match="signs nothing") as told:
        sign_release(ssh, tmp_path / "locked", RELEASE, tmp_path / "v1.tar.sig")
    assert "ssh-add" in told.value.hint
    assert not (tmp_path / "v1.tar.sig").exists()
