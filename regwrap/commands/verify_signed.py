"""Whether each image of a bundle, a storage or a registry is what its vendor signed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from regwrap.core.errors import RegwrapError
from regwrap.transfer.cosign import check_signed, is_about_another

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from regwrap.bundle.by_repository import ImageSource
    from regwrap.bundle.examine import VerifyReport
    from regwrap.tools.openssl import Openssl


def with_signatures(
    report: VerifyReport, source: ImageSource, openssl: Openssl, keys: Sequence[Path], *, prefix: str = ""
) -> VerifyReport:
    """The report of a check, with a problem for each image that none of the keys has signed. What is about an image
    that is there, a signature say, needs none. `prefix` is in front of the names in a registry."""
    problems = list[str]()
    for image in report.inventory.images:
        name, _, tag = image.image.rpartition(":")
        repository = f"{prefix}/{name}" if prefix else name
        try:
            if not is_about_another(source, repository, tag, image.digest):
                check_signed(openssl, keys, source, repository, image.digest)
        except RegwrapError as error:
            problems.append(f"{image.image}: {error.message}")
    return replace(report, problems=(*report.problems, *problems))
