"""Draws one Trifeature image: a shape, filled with a texture, in a color, on grey.

The data set is that of Hermann and Lampinen, "What shapes feature representations?" (NeurIPS 2020, arXiv 2006.12433). Its authors released
no generator; this one follows published descriptions of it, and its pixels are not those of the original. Where the descriptions are
silent (which pixel of a period is first, the lattice of `hexgrid`, the arm length of `pluses`) the choice is ours.

All arithmetic after Pillow's rotation is on integers, so an image is the same on every platform. A change of any pixel has to raise
`GENERATOR_VERSION`.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

GENERATOR_VERSION = 1
"""Part of every cache key and of a data set's identity."""

CANVAS = 224
"""Side of the drawn image in pixels; smaller sizes are averaged from it."""
_TEMPLATE = 128
_SHEET = 448
_PERIOD = 10
_LINE, _THIN_LINE = 3, 2
_MAX_ANGLE = 45

_Mask = npt.NDArray[np.bool_]
_Grid = npt.NDArray[np.float64]


def _star(x: _Grid, y: _Grid) -> _Mask:
    """An apex, a pair of arms and two legs; `x` is measured from the vertical axis."""
    size = _TEMPLATE
    column, below = size / 2 - abs(x), y - 0.55 * size
    apex = (abs(x) <= y / 4) & (y <= 0.4 * size)
    arms = (abs(x) <= size / 2 - 2.4 * (y - 0.4 * size)) & (y > 0.4 * size) & (y <= 0.6 * size)
    legs = (column >= 0.33 * size - 0.43 * below) & (column <= 0.62 * size - 1.05 * below) & (below >= 0)
    return apex | arms | legs


def _pentagon(x: _Grid, y: _Grid) -> _Mask:
    shoulder = 0.4 * _TEMPLATE
    half_width = np.where(y <= shoulder, 1.25 * y, _TEMPLATE / 2 - (y - shoulder) / 3.1)
    return abs(x) <= half_width


def _third(v: _Grid) -> npt.NDArray[np.int64]:
    return (3 * v // _TEMPLATE).astype(np.int64)


# Each takes pixel centres: x from the vertical axis (-64..64), y from the top (0..128).
_SHAPES: dict[str, Callable[[_Grid, _Grid], _Mask]] = {
    "triangle": lambda x, y: abs(x) <= y / 2,
    "square": lambda x, y: (abs(x) <= _TEMPLATE) & (y >= 0),
    "plus": lambda x, y: (abs(x) <= _TEMPLATE / 6) | (abs(y - _TEMPLATE / 2) <= _TEMPLATE / 6),
    "circle": lambda x, y: x**2 + (y - _TEMPLATE / 2) ** 2 <= (_TEMPLATE / 2) ** 2,
    "tee": lambda x, y: (abs(x) <= _TEMPLATE / 6) | (y <= _TEMPLATE / 3),
    "rhombus": lambda x, y: (x >= -y / 2) & (x <= (_TEMPLATE - y) / 2),
    "pentagon": _pentagon,
    "star": _star,
    "fivesquare": lambda x, y: (_third(x + _TEMPLATE / 2) + _third(y)) % 2 == 0,
    "trapezoid": lambda x, y: abs(x) <= _TEMPLATE / 2 - y / 3.1,
}


def _cell(v: _Grid) -> _Grid:
    """Position in the period, measured from its middle: -4.5..4.5."""
    return v % _PERIOD - (_PERIOD - 1) / 2


def _hexgrid(i: _Grid, j: _Grid) -> _Mask:
    """Lines at 0 and ±60 degrees, one period apart; the horizontal ones pass halfway between the crossings of the others, which
    leaves hexagons."""
    vertical_period, vertical_width = 2 * _PERIOD, 2 * _THIN_LINE
    rising = (i - 1.73 * j) % vertical_period < vertical_width
    falling = (i + 1.73 * j) % vertical_period < vertical_width
    return rising | falling | ((i - _PERIOD / 2 - _THIN_LINE / 2) % _PERIOD < _THIN_LINE)


def _zigzags(i: _Grid, j: _Grid) -> _Mask:
    """Bands at 45 degrees whose direction flips every period."""
    slant = np.where(i // _PERIOD % 2 == 0, i % _PERIOD, _PERIOD - 1 - i % _PERIOD)
    return (j + slant) % _PERIOD < _LINE


def _pluses(i: _Grid, j: _Grid) -> _Mask:
    shifted = j + _PERIOD / 2 * (i // _PERIOD % 2)
    u, v = abs(i % _PERIOD - _PERIOD / 2), abs(shifted % _PERIOD - _PERIOD / 2)
    return ((u <= 1.5) & (v <= 3)) | ((v <= 1.5) & (u <= 3))


# Each takes integer rows i and columns j. The two textures without a period are drawn anew for every image, by `_random_sheet`.
_PERIODIC: dict[str, Callable[[_Grid, _Grid], _Mask]] = {
    "solid": lambda i, j: (i >= 0) & (j >= 0),
    "stripes": lambda i, j: (i % _PERIOD < _LINE) & (j >= 0),
    "grid": lambda i, j: (i % _PERIOD < _LINE) | (j % _PERIOD < _LINE),
    "hexgrid": _hexgrid,
    "dots": lambda i, j: _cell(i) ** 2 + _cell(j) ** 2 <= 4**2,
    "triangles": lambda i, j: abs(_cell(j)) <= i % _PERIOD / 2,
    "zigzags": _zigzags,
    "pluses": _pluses,
}

SHAPES = tuple(_SHAPES)
"""Names of the shapes; an index into them is a code."""
TEXTURES = ("solid", "stripes", "grid", "hexgrid", "dots", "noise", "triangles", "zigzags", "rain", "pluses")
"""Names of the textures; an index into them is a code."""
COLOR_TENTHS: dict[str, tuple[int, int, int]] = {
    "red": (10, 0, 0),
    "green": (0, 10, 0),
    "blue": (0, 0, 10),
    "yellow": (10, 10, 0),
    "pink": (10, 4, 10),
    "cyan": (0, 10, 10),
    "purple": (3, 0, 5),
    "ocean": (1, 4, 5),
    "orange": (10, 6, 0),
    "white": (10, 10, 10),
}
"""RGB in tenths, which keeps every later step an integer."""
COLORS = tuple(COLOR_TENTHS)
"""Names of the colors; an index into them is a code."""


def render(shape: str, texture: str, color: str, *, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One image (size × size × 3): the shape turned by an integer angle in [-45, 45) and placed anywhere wholly inside the canvas.

    The texture has its own phase and its own angle. `rng` is used for this image only. A size below 224 is the exact area average of
    the unrounded 224-pixel image, also where it does not divide 224. Half a grey level rounds up: grey is 128.

    Raises KeyError for an unknown name and ValueError for a size outside 1..224.
    """
    if not 1 <= size <= CANVAS:
        raise ValueError(f"size is {size}, expected 1..{CANVAS}")
    mask_HW = _placed_shape(shape, rng) * _turned_texture(texture, rng)
    if size == CANVAS:
        return _pixels(np.arange(256), 1, color).take(mask_HW, axis=0)
    return _pixels(_area_sums(mask_HW, size), CANVAS**2, color)


def _pixels(coverage: npt.NDArray[np.int64], unit: int, color: str) -> npt.NDArray[np.uint8]:
    """Pixel = 255 (grey + mask (color - grey)) for mask = coverage / (255 unit), with a last axis for RGB: an integer, times 10 unit."""
    contrast_C = np.array(COLOR_TENTHS[color], dtype=np.int64) - 5
    numerator = 1275 * unit + coverage[..., None] * contrast_C
    return ((2 * numerator + 10 * unit) // (20 * unit)).astype(np.uint8)


def _placed_shape(shape: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Coverage of the canvas by the shape, 0..255."""
    angle = int(rng.integers(-_MAX_ANGLE, _MAX_ANGLE))
    turned = np.asarray(_template(shape).rotate(angle, Image.Resampling.BILINEAR, expand=True))
    height, width = turned.shape
    top, left = (int(rng.integers(0, CANVAS - side + 1)) for side in (height, width))
    canvas_HW = np.zeros((CANVAS, CANVAS), dtype=np.uint8)
    canvas_HW[top : top + height, left : left + width] = turned
    return canvas_HW


def _turned_texture(texture: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """0 or 1 for each pixel of the canvas."""
    angle = int(rng.integers(-_MAX_ANGLE, _MAX_ANGLE))
    if texture in _PERIODIC:
        i, j = (int(rng.integers(0, _PERIOD)) for _ in "yx")
        sheet = _periodic_sheet(texture)[i : i + _SHEET, j : j + _SHEET]
    else:
        sheet = _random_sheet(texture, rng)
    first, last = (_SHEET - CANVAS) // 2, (_SHEET + CANVAS) // 2
    return np.asarray(Image.fromarray(sheet).rotate(angle, Image.Resampling.NEAREST).crop((first, first, last, last)))


@cache
def _template(shape: str) -> Image.Image:
    """The upright shape, 0 or 255, on its 128 × 128 grid."""
    y, x = np.mgrid[0:_TEMPLATE, 0:_TEMPLATE] + 0.5
    return Image.fromarray(np.where(_SHAPES[shape](x - _TEMPLATE / 2, y), 255, 0).astype(np.uint8))


@cache
def _periodic_sheet(texture: str) -> npt.NDArray[np.uint8]:
    """The texture over one period more than the sheet, so that a phase is a matter of slicing."""
    i, j = np.mgrid[0 : _SHEET + _PERIOD, 0 : _SHEET + _PERIOD].astype(np.float64)
    return _PERIODIC[texture](i, j).astype(np.uint8)


def _random_sheet(texture: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """`noise`: each pixel on with probability 1/2. `rain`: vertical drops of 1 × 7 pixels, started with probability 0.05 per pixel.

    Drawn from raw bits, which NumPy promises to keep, and read as little-endian, so that every platform sees the same.
    """
    if texture == "noise":
        raw = rng.bit_generator.random_raw(_SHEET * _SHEET // 64).astype("<u8")
        return np.unpackbits(raw.view(np.uint8)).reshape(_SHEET, _SHEET)
    if texture != "rain":
        raise KeyError(texture)
    drop = 7
    rows = _SHEET + drop - 1
    raw = rng.bit_generator.random_raw(rows * _SHEET // 4).astype("<u8")
    starts = (raw.view("<u2") < round(0.05 * 2**16)).astype(np.uint8).reshape(rows, _SHEET)
    sheet = starts[:_SHEET].copy()
    for offset in range(1, drop):
        sheet |= starts[offset : offset + _SHEET]
    return sheet


def _area_sums(mask_HW: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.int64]:
    """Sums of the mask over size × size equal cells, in units of 1/size² pixels; pixels on a border count by their part inside."""
    edges = np.arange(size + 1) * CANVAS
    whole, part = edges // size, edges % size
    sums = mask_HW.astype(np.int64)
    for _ in "yx":
        padded = np.concatenate([sums, np.zeros_like(sums[:1])])
        before = np.cumsum(padded, axis=0) - padded
        integral = before[whole] * size + padded[whole] * part[:, None]
        sums = np.diff(integral, axis=0).T
    return sums
