"""verify --signed-by: what it needs beyond the check itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.bundle.opened import opened_contents
from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.commands.verify_signed import with_signatures
from regwrap.config.locations import push_location
from regwrap.core.errors import UsageError
from regwrap.tools.openssl import Openssl, need_key
from regwrap.transfer.endpoints import Endpoints

if TYPE_CHECKING:
    from regwrap.bundle.examine import VerifyReport


def checked_signatures(
    report: VerifyReport,
    target: str,
    keys: list[Path],
    bases: list[Path],
    *,
    registry: bool,
    config: Path | None,
    quiet: bool,
) -> VerifyReport:
    """With a problem for each image that none of the keys has signed. Raises UsageError for what is no key."""
    keys = [need_key(key) for key in keys]
    if target == "-":
        raise UsageError(
            "--signed-by cannot check a bundle from a pipe, which can be read only once", hint="give a file"
        )
    with opened_session(quiet=quiet) as session, ExitStack() as stack:
        openssl = Openssl(session.runner)
        if not registry:
            opened = opened_contents(Path(target), hashed=False, listener=session.progress, bases=bases)
            return with_signatures(report, stack.enter_context(opened), openssl, keys)
        settings = load(config)
        location, prefix = push_location(target, settings)
        end = Endpoints(job=session.job(settings), stack=stack).of(replace(location, storage=None))
        return with_signatures(report, end, openssl, keys, prefix=prefix)
