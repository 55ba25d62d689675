"""The files of a check: its receipt, a page for an auditor, test cases for a CI system."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from regwrap.bundle.as_list import opened_listing
from regwrap.bundle.aside import write_atomically
from regwrap.bundle.receipt import ReceiptFacts, receipt_of, receipt_text
from regwrap.cli.output import refuse_overwriting

if TYPE_CHECKING:
    from regwrap.bundle.examine import VerifyReport
    from regwrap.lists.imagelist import ImageEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptFiles:
    """Those that are None are not wanted."""

    receipt: Path | None
    html: Path | None
    junit: Path | None


def write_receipt(
    result: VerifyReport,
    target: str,
    images_list: str | None,
    entries: tuple[ImageEntry, ...] | None,
    files: ReceiptFiles,
    *,
    registry: bool,
    hashed: bool,
) -> None:
    """Whatever came of the check. Raises UsageError where a file would be written over what was read."""
    read = [Path(path) for path in (target, images_list) if path]
    for path in (files.receipt, files.html, files.junit):
        if path:
            refuse_overwriting(path, read)
    receipt = receipt_of(result, _facts(target, images_list, registry=registry, hashed=hashed), entries)
    if files.receipt:
        write_atomically(files.receipt, receipt_text(receipt))
    if files.html:
        from regwrap.report.page_receipt import receipt_page  # each is asked for now and then

        write_atomically(files.html, receipt_page(receipt))
    if files.junit:
        from regwrap.report.junit import receipt_junit

        write_atomically(files.junit, receipt_junit(receipt))


def _facts(target: str, images_list: str | None, *, registry: bool, hashed: bool) -> ReceiptFacts:
    kind = "registry" if registry else "storage" if Path(target).is_dir() else "bundle"
    name, id_ = _release_of(images_list or (target if kind == "bundle" else "-"))
    seen = kind != "registry" or hashed
    return ReceiptFacts(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        target=target if kind == "registry" else f"{Path(target).absolute()}",
        kind=kind,
        looked_at="every byte" if seen else "every manifest, and of each blob whether it is there with its size",
        list=images_list or "",
        release=name,
        id=id_,
    )


def _release_of(path: str) -> tuple[str, str]:
    """Name and id of the release that a file is; empty where it is none."""
    if path == "-":
        return "", ""
    with opened_listing(path, sys.stdin.buffer) as listing:
        return (listing.contents.name, f"{listing.contents.id}") if listing.contents else ("", "")
