"""The names that images get at a site: a prefix, renamed repositories, flat names. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from regwrap.core.errors import UsageError
from regwrap.core.model import Destination, Digest, ImageRef, ParseError, is_repository
from regwrap.lists.imagelist import ImageEntry

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Rename:
    """Repositories that are `old`, or below it, are `new`, or below that."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> Rename:
        """Of OLD=NEW. Raises ParseError."""
        old, equals, new = (part.strip("/") for part in text.partition("="))
        if not equals or not is_repository(old) or not is_repository(new):
            raise ParseError(f"{text!r} is not OLD=NEW with repository names or prefixes")
        return cls(old, new)

    def of(self, repository: str) -> str | None:
        """The new name; None where this does not concern the repository."""
        if repository == self.old or repository.startswith(f"{self.old}/"):
            return self.new + repository.removeprefix(self.old)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How repositories are called at the destination: by the first of `renames` that concerns them; of the others
    `flat` keeps only the last part; then `prefix/` in front of all."""

    prefix: str = ""
    flat: bool = False
    renames: tuple[Rename, ...] = ()

    def of(self, repository: str) -> str:
        other = repository.rpartition("/")[2] if self.flat else repository
        name = next((new for rename in self.renames if (new := rename.of(repository)) is not None), other)
        return f"{self.prefix}/{name}" if self.prefix else name


def renamed(entries: Iterable[ImageEntry], naming: Naming) -> tuple[ImageEntry, ...]:
    """The same images with their names at the destination. Raises UsageError where two get one name, and where a
    rename concerns none."""
    entries = tuple(entries)
    for rename in naming.renames:
        if not any(rename.of(entry.dest.repository) for entry in entries):
            raise UsageError(
                f"--rename {rename.old}={rename.new}: no image is named {rename.old} or {rename.old}/…",
                hint="list the names with regwrap inspect",
            )
    result = tuple(
        replace(entry, dest=replace(entry.dest, repository=naming.of(entry.dest.repository))) for entry in entries
    )
    counts = Counter(str(entry.dest) for entry in result)
    problems = [f"{e.source}: would be {e.dest}, as another image too" for e in result if counts[str(e.dest)] > 1]
    problems += [f"{e.dest}: no registry takes such a name" for e in result if not is_repository(e.dest.repository)]
    if problems:
        raise UsageError(
            "the images cannot have these names", detail="\n".join(problems), hint="choose another prefix, or --rename"
        )
    return result


def entry_of(repository: str, tag: str, digest: Digest) -> ImageEntry:
    """The entry for an image that is not from a list but from a bundle or a storage: it has no line."""
    source = ImageRef(registry=None, repository=repository, tag=tag, digest=digest)
    dest = Destination(repository, tag)
    return ImageEntry(source=source, dest=dest, platforms=(), line=0, text=str(dest))
