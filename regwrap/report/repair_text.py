"""What a repair did, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regwrap.core.counts import counted

if TYPE_CHECKING:
    from regwrap.commands.repair import RepairReport


def repair_text(report: RepairReport) -> str:
    if not report.repaired:
        return f"{report.path}: {counted(report.files, 'file')}, nothing is damaged"
    return f"{report.path}: {counted(len(report.repaired), 'file')} repaired: {', '.join(report.repaired)}"
