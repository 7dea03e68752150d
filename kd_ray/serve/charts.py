"""Where things stand in a chart. The templates draw it as SVG, so that names of anybody's are escaped like all other text.

Charts are drawn by the server rather than by a library in the browser: they are there without JavaScript, a strict content security policy
stays strict (Observable Plot and Vega write `style` elements, which it refuses), and a link shows what its sender saw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 14, 46
MARKERS = ("circle", "square", "triangle", "diamond", "down", "cross")
"""By line, beside its color."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A value on an axis."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean with its interval."""

    x: float
    y: float
    low: float | None
    high: float | None
    words: str
    """What a pointer on it shows."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One run."""

    x: float
    y: float
    words: str


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line with its points."""

    label: str
    number: int
    """Gives color and marker."""
    path: str
    points: tuple[Point, ...]
    dots: tuple[Dot, ...]

    @property
    def marker(self) -> str:
        """Shape of its points."""
        return MARKERS[self.number % len(MARKERS)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line over the whole chart, with its interval."""

    label: str
    kind: str
    """teacher, scratch or label."""
    y: float
    low: float | None
    high: float | None
    words: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Everything in its place, in pixels of the drawing."""

    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
    levels: tuple[Level, ...]
    words: str
    """The text alternative."""
    is_joined: bool = True
    """Whether lines between points mean something."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A straight way from values to pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return round(self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first), 1)


def y_scale(values: Sequence[float], *, limits: tuple[float, float] = (-math.inf, math.inf)) -> Scale:
    """A scale over the defined values with some room, within what a value can be."""
    defined = [it for it in values if math.isfinite(it)]
    low, high = (min(defined), max(defined)) if defined else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = max(low - room, limits[0]), min(high + room, limits[1])
    if low >= high:
        low, high = low - room, high + room
    return Scale(low=low, high=high, first=HEIGHT - BOTTOM, last=TOP)


def y_ticks(scale: Scale, *, about: int = 6) -> tuple[Tick, ...]:
    """Round values within a scale."""
    step = 10 ** math.floor(math.log10((scale.high - scale.low) / about))
    step *= next(it for it in (1, 2, 5, 10) if (scale.high - scale.low) / (step * it) <= about)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(scale.low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(scale.high / step + 1e-9) + 1)]
    return tuple(Tick(at=scale(it), text=f"{it:.{digits}f}".replace("-", "−")) for it in values)


def x_place(i: float, count: int) -> float:
    """Pixel of the i-th of some places side by side."""
    width = WIDTH - LEFT - RIGHT
    return round(LEFT + width * (i + 0.5) / max(count, 1), 1)


def path(points: Sequence[tuple[float, float]]) -> str:
    """The line through points, with a gap where a value is not defined."""
    words, is_down = [], False
    for x, y in points:
        if math.isnan(y):
            is_down = False
            continue
        words.append(f"{'L' if is_down else 'M'}{x:g} {y:g}")
        is_down = True
    return "".join(words)


def curve(
    epochs: npt.NDArray[Any], values: npt.NDArray[Any], *, number: int, label: str, scale: Scale, last: float
) -> Series:
    """A value over epochs."""
    across = Scale(low=0.0, high=max(last, 1.0), first=LEFT, last=WIDTH - RIGHT)
    places = [
        (across(float(x)), scale(float(y)) if np.isfinite(y) else math.nan) for x, y in zip(epochs, values, strict=True)
    ]
    return Series(label=label, number=number, path=path(places), points=(), dots=())


def epoch_ticks(last: int) -> tuple[Tick, ...]:
    """Some epochs."""
    across = Scale(low=0.0, high=max(last, 1.0), first=LEFT, last=WIDTH - RIGHT)
    step = max(1, -(-last // 8))
    return tuple(Tick(at=across(it), text=str(it)) for it in range(0, last + 1, step))
