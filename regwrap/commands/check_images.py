"""Ask registries for images, by one HEAD each: which are there, which are not, and where nobody could tell."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regwrap.core.errors import ToolError
from regwrap.registry.credentials import UnsureError
from regwrap.transfer.endpoints import Endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regwrap.core.model import ImageRef
    from regwrap.transfer.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImages:
    """`unknown` are those of which a registry said neither yes nor no, each with why."""

    absent: frozenset[ImageRef]
    unknown: tuple[str, ...]


def check_images(job: Job, images: Sequence[ImageRef]) -> CheckedImages:
    """Each image is asked for at the registry that it names; nothing is copied."""
    with ExitStack() as stack:
        endpoints = Endpoints(job=job, stack=stack)
        end_of = {
            host: endpoints.of(job.location_of(host)) for host in sorted({image.registry or "" for image in images})
        }

        def is_there(image: ImageRef) -> bool | str:
            reference = f"{image.digest or image.tag}"
            try:
                digest = job.retry.call(lambda: end_of[image.registry or ""].resolve(image.repository, reference))
            except (ToolError, UnsureError) as error:
                return f"{image}: {error}"
            return digest is not None

        found = job.ask(is_there, images)
    return CheckedImages(
        absent=frozenset(image for image, there in zip(images, found, strict=True) if there is False),
        unknown=tuple(there for there in found if isinstance(there, str)),
    )
