"""Sign the id of a bundle, and check who signed it, before anything else of it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.bundle.aside import write_atomically
from regwrap.bundle.signature import signed_text
from regwrap.core.errors import IntegrityError
from regwrap.tools.ssh_keygen import SshKeygen, need_signers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from regwrap.core.model import Digest

_MOST_BYTES: Final = (
    64 * 1024
)  # one of the longest key with a certificate has 10 KiB; ssh-keygen reads any length, slowly
_HINT: Final = "ask the vendor for the signature of this very release (.sig), and for the public key"


def sign_release(ssh: SshKeygen, key: Path, release: Digest, file: Path) -> None:
    """Write the signature. Raises ToolError where the key does not sign."""
    write_atomically(file, ssh.sign(key, signed_text(release)))


@dataclass(frozen=True, slots=True)
class CheckedSignature:
    """A release is trusted if `file` is the signature of its id by one of `signers`."""

    ssh: SshKeygen
    signers: Path
    file: Path
    log: Callable[[str], None]

    def __call__(self, release: Digest) -> None:
        """Raises IntegrityError, also where there is no signature; UsageError where there are no signers."""
        need_signers(self.signers)
        if not self.file.is_file():
            raise IntegrityError(
                f"the bundle is not signed: there is no {self.file}; nothing was read of it",
                hint="give the signature with --signature FILE; or take signers: out of the configuration",
            )
        is_one = self.file.stat().st_size <= _MOST_BYTES
        name = self.ssh.signer(self.signers, self.file, signed_text(release)) if is_one else None
        if name is None:
            raise IntegrityError(f"{self.file} is no signature of {release} by one of {self.signers}", hint=_HINT)
        self.log(f"signed by {name}")
