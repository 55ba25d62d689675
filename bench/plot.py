"""Line charts and bar charts as SVG, by hand: a few lines of text that a browser, and a diff, can read."""

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

Series = Mapping[str, Sequence[tuple[float, float]]]

_WIDTH: Final = 720
_HEIGHT: Final = 360
_LEFT: Final = 64
_RIGHT: Final = 210
_TOP: Final = 48
_BOTTOM: Final = 48
_COLOURS: Final = ("#d1495b", "#00798c", "#edae49", "#30638e", "#66a182", "#8d6a9f")
_BAR: Final = 24


def line_chart(title: str, axis: str, unit: str, series: Series) -> str:
    """Both axes logarithmic where all values allow it, else x is linear: a slope is then an exponent."""
    points = [point for line in series.values() for point in line]
    across = _Scale([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    up = _Scale([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    body = [*_frame(title, axis, unit, across, up)]
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(across.place(x), up.place(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        body += _legend(number, name, colour)
    return _document(_HEIGHT, body)


def bar_chart(title: str, bars: Sequence[tuple[str, float, float, float]]) -> str:
    """Name, median, least, most: seconds, from 0."""
    most = max((high for _, _, _, high in bars), default=1.0)
    scale = (_WIDTH - 320) / most
    body = [_text(12, 20, title, size=14)]
    for number, (name, median, low, high) in enumerate(bars):
        y = 36 + number * _BAR
        colour = _COLOURS[0] if name.startswith("regwrap") else _COLOURS[3]
        body.append(_text(222, y + 13, name, anchor="end"))
        body.append(f'<rect x="230" y="{y}" width="{median * scale:.1f}" height="16" fill="{colour}"/>')
        middle = y + 8
        body.append(
            f'<line x1="{230 + low * scale:.1f}" x2="{230 + high * scale:.1f}" y1="{middle}" y2="{middle}"'
            ' stroke="#222" stroke-width="1.5"/>'
        )
        body.append(_text(236 + high * scale, y + 13, f"{median:.3g} s"))
    return _document(44 + len(bars) * _BAR, body)


class _Scale:
    """Values to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.log = min(values) > 0 and max(values) / min(values) > 5
        low, high = min(values), max(values)
        if self.log:
            self.low, self.high = math.log10(low), math.log10(high)
        else:
            self.low, self.high = min(0.0, low), high
        if self.high == self.low:
            self.high += 1
        self.start, self.end = start, end

    def place(self, value: float) -> float:
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        if self.log:
            for power in range(math.floor(self.low), math.ceil(self.high) + 1):
                yield from (f * 10.0**power for f in self._factors() if self._holds(f * 10.0**power))
            return
        step = 10 ** math.floor(math.log10(self.high - self.low))
        step = step / 2 if (self.high - self.low) / step < 4 else step
        yield from (step * number for number in range(int(self.high / step) + 1))

    def _factors(self) -> tuple[int, ...]:
        return (1, 2, 5) if self.high - self.low < 2.5 else (1,)

    def _holds(self, value: float) -> bool:
        return self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9


def _frame(title: str, axis: str, unit: str, across: _Scale, up: _Scale) -> Iterator[str]:
    yield _text(12, 20, title, size=14)
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    yield f'<path d="M{_LEFT},{_TOP}V{bottom}H{right}" fill="none" stroke="#444"/>'
    for value in across.ticks():
        x = across.place(value)
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}" stroke="#444"/>'
        yield _text(x, bottom + 17, _short(value), anchor="middle")
    for value in up.ticks():
        y = up.place(value)
        yield f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 6, y + 4, _short(value), anchor="end")
    yield _text((_LEFT + right) / 2, _HEIGHT - 10, axis, anchor="middle")
    yield _text(_LEFT, _TOP - 4, unit, size=11)


def _legend(number: int, name: str, colour: str) -> Iterator[str]:
    y = _TOP + 12 + number * 20
    x = _WIDTH - _RIGHT + 14
    yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
    yield _text(x + 16, y, name)


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _document(height: float, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" fill="#222">'
    )
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>', *body, "</svg>"]) + "\n"
