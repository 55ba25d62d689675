"""What stands beside a bundle: its signature, recovery data, and regwrap for the site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from regwrap.cli.signing import check_signing, signed, signed_ahead
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from regwrap.bundle.stream import Target
    from regwrap.core.model import Digest
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True)
class Finishing:
    """`key` signs the release into `signature` (None: beside the bundle); `percent` of recovery data, 0 for none;
    `with_tool`: regwrap itself. Where one `volume` alone is made again, what stands beside the rest is still right."""

    output: Path | None
    key: Path | None
    signature: Path | None
    percent: int
    volume: int | None
    with_tool: bool = False

    @classmethod
    def parse(
        cls, output: Path | None, key: Path | None, signature: Path | None, parity: str | None, volume: int | None
    ) -> Self:
        """What can't be is said before anything is done. Raises UsageError."""
        check_signing(key, output, signature)
        return cls(output, key, signature, _percent(parity, output, volume), volume)

    def ahead(self, job: Job, target: Target | None) -> Target | None:
        """The target of a bundle; what goes into a pipe is signed before its first byte goes, since who reads it asks
        for the signature then."""
        if self.key is None or self.signature is None:
            return target
        from regwrap.bundle.pipe import PipeTarget  # most bundles are files

        beside = partial(signed_ahead, job.runner, self.key, self.signature)
        return replace(target, beside=beside) if isinstance(target, PipeTarget) else target

    def finish(self, job: Job, release: Digest) -> None:
        """Sign the release, protect its files, add the tool, as it is wanted; what is there of an earlier bundle goes.
        Raises ToolError."""
        if self.output is None or self.output == Path("-") or self.volume is not None:
            return
        signed(job.runner, self.key, self.output, self.signature, release)
        if self.percent:
            _protect(job, self.output, self.percent)
        if self.with_tool:
            _add_tool(job, self.output)


def _percent(text: str | None, output: Path | None, volume: int | None) -> int:
    if text is None:
        return 0
    number = text.removesuffix("%")
    if not (number.isascii() and number.isdecimal() and 1 <= int(number) <= 100):
        raise UsageError(f"--parity: expected a percentage from 1% to 100%, got {text!r}")
    if output == Path("-") or volume is not None:
        raise UsageError("--parity cannot be combined with -o - or --volume", hint="leave it out, or write all volumes")
    return int(number)


def _protect(job: Job, output: Path, percent: int) -> None:
    from regwrap.commands.repair import add_parity  # most bundles have none
    from regwrap.tools.par2 import Par2

    job.listener.log(f"{output}: par2 computes recovery data of {percent}%")
    add_parity(Par2(job.runner, job.timeouts.disk_stall), output, percent)


def _add_tool(job: Job, output: Path) -> None:
    from regwrap.commands.pyz import add_pyz  # few releases have it

    added = add_pyz(output)
    job.listener.log(f"{added.path}: regwrap for the site, which needs python3 alone")
    if added.was_other:
        job.listener.log(f"{added.path} replaced another one, which checksums of earlier releases still name")
