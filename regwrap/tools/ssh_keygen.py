"""ssh-keygen: its flags for signatures of bundles, in one place (ssh-keygen(1), -Y sign and -Y verify).

What is signed is the id of a release as a line of text, so anybody can check it with ssh-keygen alone. Keys in an agent
or on a token work, since ssh does: it is asked by the socket of the environment.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regwrap.core.errors import ToolError, UsageError
from regwrap.core.writing import read_file, write_file
from regwrap.tools.runner import Command, Runner, Tool

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACE: Final = "regwrap-bundle"
_SECONDS: Final = 120  # a token may wait to be touched
_NOBODY: Final = 255


@dataclass(frozen=True, slots=True)
class SshKeygen:
    """`agent` is the socket of an agent, empty without one."""

    runner: Runner
    agent: str

    def sign(self, key: Path, text: str) -> str:
        """The signature by a private key, or by the agent's key with this public one. Raises ToolError."""
        with self._file(text) as message:
            args = ("-Y", "sign", "-q", "-f", f"{key}", "-n", NAMESPACE, f"{message}")
            try:
                self._run(args)
            except ToolError as error:
                hint = "a key with a passphrase has to be in an agent (ssh-add): give its public key then"
                raise ToolError(f"{key} signs nothing", detail=error.detail, hint=hint) from error
            return read_file(message.with_name(f"{message.name}.sig")).decode("ascii")

    def signer(self, signers: Path, signature: Path, text: str) -> str | None:
        """Who of `signers` has signed the text; None where it is nobody of them, or something else was signed."""
        found = self._run(("-Y", "find-principals", "-f", f"{signers}", "-s", f"{signature}"), (0, _NOBODY, 1))
        names = [line for line in found.splitlines() if line]
        with self._file(text) as message:
            for name in names:
                args = ("-Y", "verify", "-q", "-f", f"{signers}", "-I", name, "-n", NAMESPACE, "-s", f"{signature}")
                command = self._command(args, (0, _NOBODY, 1), stdin=message)
                if self.runner.run(command).exit_code == 0:
                    return name
        return None

    @contextmanager
    def _file(self, text: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.runner.scratch) as directory:
            path = Path(directory) / "id"
            write_file(path, text)
            yield path

    def _run(self, args: tuple[str, ...], ok_codes: tuple[int, ...] = (0,)) -> str:
        return self.runner.run(self._command(args, ok_codes)).stdout.decode(errors="replace")

    def _command(self, args: tuple[str, ...], ok_codes: tuple[int, ...], stdin: Path | None = None) -> Command:
        # nobody can be asked for a passphrase: the answer is no, at once
        env = (("SSH_ASKPASS_REQUIRE", "force"), ("SSH_ASKPASS", "/bin/false"))
        agent = (("SSH_AUTH_SOCK", self.agent),) if self.agent else ()
        return Command(
            tool=Tool.SSH_KEYGEN, args=args, env=(*env, *agent), ok_codes=ok_codes, timeout=_SECONDS, stdin=stdin
        )


def need_signers(path: Path) -> Path:
    """Raises UsageError where the file of signers can't be read."""
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UsageError(
            f"the signers {path} cannot be read: {error.strerror}",
            hint="a line each: NAME ssh-ed25519 KEY (ssh-keygen(1), ALLOWED SIGNERS)",
        ) from error
