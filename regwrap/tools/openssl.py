"""openssl: whether a signature is that of a public key (openssl-dgst(1), -verify)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import UsageError
from regwrap.core.writing import write_file
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS: Final = 60
_PEM: Final = b"-----BEGIN PUBLIC KEY-----"
_VERIFIED: Final = b"Verified OK"


@dataclass(frozen=True, slots=True)
class Openssl:
    """Signatures of images, checked by `openssl dgst -verify`."""

    runner: Runner

    def has_signed(self, keys: Sequence[Path], payload: bytes, signature: bytes) -> bool:
        """Whether one of the keys has signed the sha256 of the payload."""
        with tempfile.TemporaryDirectory(dir=self.runner.scratch) as directory:
            files = Path(directory, "payload"), Path(directory, "signature")
            for file, data in zip(files, (payload, signature), strict=True):
                write_file(file, data)
            return any(self._is_by(key, *files) for key in keys)

    def _is_by(self, key: Path, payload: Path, signature: Path) -> bool:
        args = ("dgst", "-sha256", "-verify", f"{key}", "-signature", f"{signature}", f"{payload}")
        command = Command(tool=Tool.OPENSSL, args=args, timeout=_SECONDS, ok_codes=(0, 1))
        result = self.runner.run(command)
        return result.exit_code == 0 and result.stdout.strip() == _VERIFIED


def need_key(path: Path) -> Path:
    """Raises UsageError where the file has no public key."""
    try:
        with path.open("rb") as file:
            if _PEM in file.read(64 * 1024):
                return path
    except OSError as error:
        raise UsageError(f"the key {path} cannot be read: {error.strerror}") from error
    raise UsageError(f"{path} is no public key in PEM", hint="give the vendor's cosign.pub, not the private key")
