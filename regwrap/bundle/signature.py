"""What is signed of a bundle: its id, which all of it follows from; so one signature is good for the whole, for deltas,
volumes and what comes through a pipe.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from regwrap.core.model import Digest

Trust = Callable[["Digest"], None]  # raises IntegrityError for a release that nobody signed who may


def signature_path(bundle: Path) -> Path:
    """Where one is written."""
    return bundle.with_name(f"{bundle.name}.sig")


def signed_text(release: Digest) -> str:
    """As `echo ID` writes it."""
    return f"{release}\n"
