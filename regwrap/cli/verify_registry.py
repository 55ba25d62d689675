"""verify of a registry: what it needs beyond files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.cli.session import opened_session
from regwrap.cli.settings import load
from regwrap.cli.wanted import listed
from regwrap.commands.verify_registry import RegistryCheck, verify_registry
from regwrap.config.locations import push_location
from regwrap.core.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.bundle.examine import VerifyReport
    from regwrap.lists.imagelist import ImageEntry


def checked_registry(
    target: str, images_list: str | None, *, exact: bool, hashed: bool, config: Path | None, quiet: bool
) -> tuple[VerifyReport, tuple[ImageEntry, ...]]:
    if images_list is None:
        raise UsageError(f"{target} is a registry: say what has to be there", hint="give --list LIST or BUNDLE.TAR")
    settings = load(config)
    location, prefix = push_location(target, settings)
    check = RegistryCheck(location=location, prefix=prefix, exact=exact, hashed=hashed)
    with opened_session(quiet=quiet) as session:
        entries = listed(images_list, settings, session.progress).entries
        return verify_registry(session.job(settings), check, entries), entries
