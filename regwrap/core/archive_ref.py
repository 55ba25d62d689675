"""An image in a file or a directory, named as skopeo names it: what a supplier sent is a source as a registry is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from regwrap.core.model import Destination, Digest, ImageRef, ParseError, is_tag

_TRANSPORT: Final = re.compile(r"(docker-archive|oci-archive|oci|dir):")
_DIGEST: Final = re.compile(r"(.+)@(sha256:[0-9a-f]{64})")
# The one name under which an image is found once it is unpacked; the text says which image is meant.
_REPOSITORY: Final = "unpacked"
_TAG: Final = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRef(ImageRef):
    """`docker-archive:FILE[:REF]`, `oci-archive:FILE[:REF]`, `oci:DIR[:TAG]`, `dir:DIR`, each with `@DIGEST` where it
    has to be that image. As an ImageRef it is the image in what skopeo makes of it."""

    transport: str
    path: str
    reference: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ParseError."""
        digest = _DIGEST.fullmatch(text)
        bare = digest[1] if digest else text
        transport, _, rest = bare.partition(":")
        path, _, reference = (rest, "", "") if transport == "dir" else rest.partition(":")
        if not _TRANSPORT.match(text) or not path:
            raise ParseError(f"expected {transport}:PATH, the path is missing", len(transport) + 1)
        return cls(
            registry=None,
            repository=_REPOSITORY,
            tag=_TAG,
            digest=Digest.parse(digest[2]) if digest else None,
            transport=transport,
            path=path,
            reference=reference,
        )

    @property
    def url(self) -> str:
        """For skopeo, and as a name in messages."""
        return f"{self.transport}:{self.path}{':' if self.reference else ''}{self.reference}"

    @property
    def name(self) -> str:
        return self.url

    @property
    def own_name(self) -> Destination | None:
        """What the image is called in the archive; None where it has no whole name there."""
        try:
            image = ImageRef.parse(self.reference)
        except ParseError:
            return None
        return Destination(image.repository, image.tag) if image.tag else None

    @property
    def own_tag(self) -> str | None:
        """The tag in the archive, where that is all it says."""
        name = self.own_name
        return name.tag if name else self.reference if is_tag(self.reference) else None

    def sort_key(self) -> tuple[str, ...]:
        return (self.url, f"{self.digest or ''}")

    def __str__(self) -> str:
        return f"{self.url}{'@' if self.digest else ''}{self.digest or ''}"


def is_archive(text: str) -> bool:
    """Whether a text begins as one."""
    return _TRANSPORT.match(text) is not None
