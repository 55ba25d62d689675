"""What was found in manifests as a list: what `image:` names first, then what stands elsewhere, each with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.lists.imagelist import image_line

if TYPE_CHECKING:
    from collections.abc import Collection

    from regwrap.core.model import ImageRef
    from regwrap.lists.manifests.find import FoundImages

_ELSEWHERE: Final = "in variables, arguments, ConfigMaps and the like: check each; --sure excludes them"
_ABSENT: Final = "# not there: "


def manifests_text(found: FoundImages, absent: Collection[ImageRef] = ()) -> str:
    """A list. What is `absent` at its registry stands behind a #."""
    lines = [
        f"# {counted(len(found.images), 'image')}, by regwrap list from-manifests",
        *(_line(image, absent) for image in found.images),
    ]
    if found.elsewhere:
        lines += ["", f"# {len(found.elsewhere)} more, {_ELSEWHERE}"]
        lines += [f"{_line(other.image, absent)}  # {other.where}" for other in found.elsewhere]
    return "".join(f"{line}\n" for line in lines)


def _line(image: ImageRef, absent: Collection[ImageRef]) -> str:
    return f"{_ABSENT if image in absent else ''}{image_line(image)}"
