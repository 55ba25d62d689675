"""Which bytes are needed by which images: each blob once, as areas and as tables. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from regwrap.core.text import human_bytes
from regwrap.report.page_html import Markup, joined, tag
from regwrap.report.page_parts import (
    Cell,
    digest_cell,
    figure,
    legend,
    name_cell,
    number_cell,
    short_name,
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
_LINE: Final = 3.5
_LONGEST: Final = 14
_LARGE: Final = 450  # an area that holds them on a narrow screen too


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A blob and the images that need it, in their order."""

    digest: str
    size: int
    images: tuple[str, ...]

    @property
    def users(self) -> str:
        more = len(self.images) - _NAMES
        return ", ".join(self.images[:_NAMES]) + (f" and {more} more" if more > 0 else "")


def pieces_of(needs: Mapping[str, Mapping[str, int]]) -> tuple[Piece, ...]:
    """Each blob once, the largest first; `needs` has sizes by digest for each image."""
    users: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = {}
    for image, blobs in needs.items():
        for digest, size in blobs.items():
            users[digest].append(image)
            sizes[digest] = size
    pieces = (Piece(digest=digest, size=sizes[digest], images=tuple(names)) for digest, names in users.items())
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


def shared_map(pieces: Sequence[Piece]) -> Markup:
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


def _groups(pieces: Sequence[Piece]) -> Iterator[_Group]:
    yield _Group(style="alone", title="one image only", tiles=_alone([p for p in pieces if len(p.images) == 1]))
    for style, title, low, high in (("few", "2 to 4", 2, 4), ("some", "5 to 19", 5, 19), ("many", "20 or more", 20, 0)):
        inside = [p for p in pieces if low <= len(p.images) and (not high or len(p.images) <= high)]
        tiles = [_Tile(name=f"in {len(p.images)}", size=p.size, about=f"{p.digest}, {p.users}") for p in inside]
        yield _Group(style=style, title=f"{title} images", tiles=_bounded(tiles, "layers"))


def _alone(pieces: Iterable[Piece]) -> tuple[_Tile, ...]:
    """What dropping an image would save, an image a tile."""
    sizes: dict[str, int] = defaultdict(int)
    for piece in pieces:
        sizes[piece.images[0]] += piece.size
    tiles = [
        _Tile(name=short_name(image), size=size, about=f"used only by {image}", place=image.rpartition("/")[0])
        for image, size in sizes.items()
    ]
    return _bounded(tiles, "images")


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
    return _Tile(name=name, size=sum(tile.size for tile in tiles), about=f"{len(tiles)} smaller {what}{inside}")


def _drawn(group: _Group, box: Box) -> Iterator[Markup]:
    for tile, part in zip(group.tiles, squarified([tile.size for tile in group.tiles], box), strict=True):
        area = f"left:{part.x / 2:.3f}%;top:{part.y:.3f}%;width:{part.width / 2:.3f}%;height:{part.height:.3f}%"
        size = human_bytes(tile.size)
        attributes = {"class": f"tile {group.style}", "style": area, "title": f"{size}: {tile.about}"}
        yield tag("div", attributes, *_words(tile, size, part))


def _words(tile: _Tile, size: str, part: Box) -> Iterator[Markup]:
    """What there is room for: the size, and the name above it."""
    room = {} if part.width * part.height >= _LARGE else {"class": "wide"}
    letters = int(part.width / _LETTER) - 1
    names = (name for name in (tile.name, tile.name.partition(":")[0]) if letters >= min(len(name), _LONGEST))
    if part.height >= 2 * _LINE and (name := next(names, "")):
        yield tag("b", room, name)
    if part.height >= _LINE and letters >= len(size):
        yield tag("span", room, size)


def largest_blobs(pieces: Sequence[Piece], count: int) -> Markup:
    head = (Cell("Layer"), Cell("Size", "number"), Cell("Images", "number"), Cell("Used by", "wide"))
    rows = [
        (
            digest_cell(piece.digest),
            size_cell(piece.size, pieces[0].size),
            number_cell(len(piece.images)),
            name_cell(piece.users, "wide"),
        )
        for piece in pieces[:count]
    ]
    return titled("The largest layers", head, rows)
