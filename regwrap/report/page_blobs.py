"""Which bytes are needed by which images: each blob once, as areas and as tables. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.counts import counted
from regwrap.core.text import human_bytes
from regwrap.report.page_html import Markup, joined, tag
from regwrap.report.page_names import fitted, names_apart
from regwrap.report.page_parts import (
    Cell,
    digest_cell,
    figure,
    legend,
    number_cell,
    size_cell,
    titled,
)
from regwrap.report.page_treemap import Box, squarified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_TILES: Final = 150
_PLACES: Final = 40
_NAMES: Final = 3
_WIDE: Final = Box(0, 0, 200, 100)
_LETTER: Final = 1.35  # the width of one, where the whole is 200
_NARROW_LETTER: Final = 4.0  # the same on a narrow screen
_LINE: Final = 3.5


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedBlob:
    """A blob and the images that need it, in their order."""

    digest: str
    size: int
    images: tuple[str, ...]

    @property
    def users(self) -> str:
        return _some(self.images)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def pieces_of(needs: Mapping[str, Mapping[str, int]]) -> tuple[UsedBlob, ...]:
    """Each blob once, the largest first; `needs` has sizes by digest for each image."""
    users: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for image, blobs in needs.items():
        for digest, size in blobs.items():
            users[digest].append(image)
            sizes[digest] = size
    pieces = (UsedBlob(digest=digest, size=sizes[digest], images=tuple(names)) for digest, names in users.items())
    return tuple(sorted(pieces, key=lambda piece: (-piece.size, piece.digest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    name: str
    size: int
    about: str
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Blobs that about as many images share. `style` is its class."""

    style: str
    title: str
    tiles: tuple[_Tile, ...]

    @property
    def size(self) -> int:
        return sum(tile.size for tile in self.tiles)


def shared_map(pieces: Sequence[UsedBlob]) -> Markup:
    """Areas: every byte once, by the number of images that need it."""
    groups = sorted((group for group in _groups(pieces) if group.size), key=lambda group: -group.size)
    if not groups:
        return tag("p", {"class": "quiet"}, "No layers are known.")
    boxes = squarified([group.size for group in groups], _WIDE)
    tiles = joined(tile for group, box in zip(groups, boxes, strict=True) for tile in _drawn(group, box))
    total, shared = sum(piece.size for piece in pieces), sum(p.size for p in pieces if len(p.images) > 1)
    about = f"{human_bytes(shared)} of {human_bytes(total)} used by more than one image"
    by_users = (group for group in _groups(pieces) if group.size)
    keys = legend((f"{group.title}: {human_bytes(group.size)}", group.style) for group in by_users)
    return joined((figure("map", about, tiles), keys))


def _groups(pieces: Sequence[UsedBlob]) -> Iterator[_Group]:
    yield _Group(style="alone", title="one image only", tiles=_alone([p for p in pieces if len(p.images) == 1]))
    for style, title, low, high in (("few", "2 to 4", 2, 4), ("some", "5 to 19", 5, 19), ("many", "20 or more", 20, 0)):
        inside = [p for p in pieces if low <= len(p.images) and (not high or len(p.images) <= high)]
        tiles = [_Tile(name=f"in {len(p.images)}", size=p.size, about=f"{p.digest}, {p.users}") for p in inside]
        yield _Group(style=style, title=f"{title} images", tiles=_bounded(tiles, "layer"))


def _alone(pieces: Iterable[UsedBlob]) -> tuple[_Tile, ...]:
    """What dropping an image would save, an image a tile."""
    sizes: dict[str, int] = defaultdict(int)
    for piece in pieces:
        sizes[piece.images[0]] += piece.size
    short = names_apart(sizes)
    tiles = [
        _Tile(name=short[image], size=size, about=f"used only by {image}", place=image.rpartition("/")[0])
        for image, size in sizes.items()
    ]
    return _bounded(tiles, "image")


def _bounded(tiles: Iterable[_Tile], what: str) -> tuple[_Tile, ...]:
    """The largest, and the others together: by their place as long as there are few of these."""
    found = sorted((tile for tile in tiles if tile.size), key=lambda tile: (-tile.size, tile.about))
    rest = found[_TILES:]
    places = {tile.place for tile in rest} if len({tile.place for tile in rest}) <= _PLACES else {""}
    together = [_together([t for t in rest if places == {""} or t.place == place], place, what) for place in places]
    shown = (*found[:_TILES], *(together if rest else ()))
    return tuple(sorted(shown, key=lambda tile: (-tile.size, tile.about)))


def _together(tiles: Sequence[_Tile], place: str, what: str) -> _Tile:
    inside = f" in {place}" if place else ""
    name = f"{len(tiles)} more{inside}"
    return _Tile(
        name=name, size=sum(tile.size for tile in tiles), about=f"{counted(len(tiles), f'smaller {what}')}{inside}"
    )


def _drawn(group: _Group, box: Box) -> Iterator[Markup]:
    for tile, part in zip(group.tiles, squarified([tile.size for tile in group.tiles], box), strict=True):
        area = f"left:{part.x / 2:.3f}%;top:{part.y:.3f}%;width:{part.width / 2:.3f}%;height:{part.height:.3f}%"
        size = human_bytes(tile.size)
        attributes = {"class": f"tile {group.style}", "style": area, "title": f"{size}: {tile.about}"}
        yield tag("div", attributes, *_words(tile, size, part))


def _words(tile: _Tile, size: str, part: Box) -> Iterator[Markup]:
    """What there is room for, on a wide screen and on a narrow one: the size, and the name above it."""
    wide, narrow = int(part.width / _LETTER) - 1, int(part.width / _NARROW_LETTER) - 1
    if part.height >= 2 * _LINE:
        yield from _sized("b", fitted(tile.name, wide), fitted(tile.name, narrow))
    if part.height >= _LINE:
        yield from _sized("span", size if len(size) <= wide else "", size if len(size) <= narrow else "")


def _sized(name: str, wide: str, narrow: str) -> Iterator[Markup]:
    """A text for each width of the screen."""
    texts = ((wide, ""),) if wide == narrow else ((wide, "wide"), (narrow, "narrow"))
    yield from (tag(name, {"class": style} if style else {}, text) for text, style in texts if text)


def largest_blobs(pieces: Sequence[UsedBlob], count: int) -> Markup:
    head = (Cell("Layer"), Cell("Size", "number"), Cell("Images", "number"), Cell("Used by", "wide"))
    short = names_apart({image for piece in pieces for image in piece.images})
    rows = [
        (
            digest_cell(piece.digest),
            size_cell(piece.size, pieces[0].size),
            number_cell(len(piece.images)),
            Cell(_some([short[image] for image in piece.images]), "wide", piece.users),
        )
        for piece in pieces[:count]
    ]
    return titled("The largest layers", head, rows)
