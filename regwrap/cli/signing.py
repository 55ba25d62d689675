"""Options about signatures of bundles: who signs, and who has to have signed."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from regwrap.bundle.signature import Trust
    from regwrap.core.listener import Listener
    from regwrap.core.model import Digest
    from regwrap.tools.runner import Runner


@contextmanager
def trusting(
    bundle: Path, signers: Path | None, signature: Path | None, listener: Listener, *, configured: Path | None
) -> Iterator[Trust | None]:
    """Who is asked for the release of `bundle`; nobody without signers. A storage has no signature: `configured` ones
    are not asked for it."""
    if bundle.is_dir():
        refuse_signers(f"{bundle}", signers, signature)
        yield None
        return
    signers = signers or configured
    if signers is None:
        _refuse_signature(signature)
        yield None
        return
    from regwrap.bundle.volume_places import beside  # most bundles are not signed

    if signature is None and bundle == Path("-"):
        raise UsageError("a bundle from a pipe needs its signature in a file", hint="give it with --signature FILE")
    with _checked(signers, signature or beside(bundle, ".sig"), listener) as trust:
        yield trust


def refuse_signers(target: str, signers: Path | None, signature: Path | None) -> None:
    """Of a storage or a registry no signature of a bundle can be checked. Raises UsageError where it should be."""
    if signers is not None or signature is not None:
        raise UsageError(
            f"{target} has no signature of a bundle: it is a storage or a registry",
            hint="leave out --signers and --signature, and check the bundle with them: regwrap verify BUNDLE.TAR;"
            " images that are signed are checked by regwrap verify --signed-by KEY",
        )


@contextmanager
def trusting_tree(signers: Path | None, signature: Path | None, listener: Listener) -> Iterator[Trust | None]:
    """The same for images in another form, whose signature is that of the bundle that they were exported from."""
    if signers is None:
        _refuse_signature(signature)
        yield None
        return
    if signature is None:
        raise UsageError(
            "these images have their signature elsewhere: it is that of the bundle they come from",
            hint="give it with --signature FILE; or take signers: out of the configuration",
        )
    with _checked(signers, signature, listener) as trust:
        yield trust


def _refuse_signature(signature: Path | None) -> None:
    if signature is not None:
        raise UsageError("--signature is checked with --signers FILE, or signers: in the configuration")


@contextmanager
def _checked(signers: Path, signature: Path, listener: Listener) -> Iterator[Trust]:
    from regwrap.commands.sign import CheckedSignature
    from regwrap.tools.launcher import ShLauncher
    from regwrap.tools.runner import Runner
    from regwrap.tools.scratch import scratch_directory
    from regwrap.tools.ssh_keygen import SshKeygen

    with scratch_directory() as scratch:
        path = os.environ.get("PATH", os.defpath)
        runner = Runner(launcher=ShLauncher(), scratch=scratch, search_path=path)
        yield CheckedSignature(SshKeygen(runner, agent=""), signers, signature, listener.log)


def signed(runner: Runner, key: Path | None, output: Path, signature: Path | None, release: Digest) -> None:
    """Sign what was written, if that is wanted. One that is there of an earlier bundle goes."""
    from regwrap.bundle.signature import signature_path

    file = signature or signature_path(output)
    if key is not None:
        _sign(runner, key, file, release)
    elif signature is None:
        file.unlink(missing_ok=True)


@contextmanager
def signed_ahead(runner: Runner, key: Path, file: Path, release: Digest) -> Iterator[None]:
    """Sign what is written in the block. The signature goes again where that fails."""
    try:
        _sign(runner, key, file, release)
        yield
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _sign(runner: Runner, key: Path, file: Path, release: Digest) -> None:
    from regwrap.commands.sign import sign_release
    from regwrap.tools.ssh_keygen import SshKeygen

    sign_release(SshKeygen(runner, os.environ.get("SSH_AUTH_SOCK", "")), key, release, file)


def check_signing(key: Path | None, output: Path | None, signature: Path | None) -> None:
    """What can't be is said before anything is done. Raises UsageError."""
    if key is None and signature is not None:
        raise UsageError("--signature is where the signature of --sign-key goes")
    if key is not None and not key.is_file():
        raise UsageError(
            f"the key {key} is not a file", hint="give a private key, or the public one of a key in an agent"
        )
    if key is not None and signature is None and output == Path("-"):
        raise UsageError("a bundle that goes into a pipe needs a file for its signature", hint="give --signature FILE")


def configured_signers(config: Path | None) -> Path | None:
    """What the configuration says, if there is one: most checks need nothing else of it."""
    from regwrap.cli.settings import load

    return load(config).signers
