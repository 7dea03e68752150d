"""How figures look, and how they become files: the same bytes for the same numbers.

Colors are those of Okabe & Ito (2008), which color-blind readers can distinguish; every line also has its own marker or dashes, for print
in black and white.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLACK, GREY, BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = (
    "#000000",
    "#6b6b6b",
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#b0578d",
    "#56b4e9",
    "#c98a00",
)
SERIES_COLORS = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
SERIES_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SERIES_DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)))
TEACHER: dict[str, Any] = {"color": BLACK, "linestyle": (0, (6, 2)), "linewidth": 1.3}
SCRATCH: dict[str, Any] = {"color": GREY, "linestyle": (0, (6, 2, 1, 2)), "linewidth": 1.3}
CHANCE_LINE: dict[str, Any] = {"color": PURPLE, "linestyle": (0, (3, 1.6)), "linewidth": 1.3}
EXPECTED: dict[str, Any] = {"color": ORANGE, "linestyle": (0, (1, 1.3)), "linewidth": 1.5}

WIDTH = 7.2
"""Inches: the width of a page with margins, so that 9-point text stays 9 points in print."""

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    # Users choose class names and settings, so a dollar sign in them does not begin a formula.
    "text.parse_math": False,
    "text.usetex": False,
    # Text as outlines looks the same everywhere. A fixed salt gives the same ids in every run.
    "svg.fonttype": "path",
    "svg.hashsalt": "kd_ray",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A figure with its title and caption."""

    name: str
    """Stem of its files."""
    title: str
    caption: str
    """What it shows, how its intervals are made, n: it stands under the figure and is its text alternative."""
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A figure as files."""

    svg: bytes
    pdf: bytes | None
    """None unless it was asked for, because it takes as long as the rest of the report."""

    def inline(self, prefix: str) -> str:
        """The SVG for a page that holds several figures: its ids get a prefix, so that they differ from those of other figures."""
        text = self.svg.decode()
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        text = text.replace('<style type="text/css">*{', '<style type="text/css">figure svg *{')
        text = re.sub(r'\bid="', f'id="{prefix}-', text)
        text = re.sub(r'href="#', f'href="#{prefix}-', text)
        text = re.sub(r"url\(#", f"url(#{prefix}-", text)
        return re.sub(r"\n\s*", "\n", text)


@contextmanager
def drawing() -> Iterator[None]:
    """Everything inside is drawn in the style of the report, whatever the caller's settings are."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def render(figure: Figure, *, with_pdf: bool = False) -> Rendered:
    """SVG, and PDF if it is asked for, of one figure; neither holds a date."""
    # Placed once; saving would do it again for each file.
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    svg, pdf = io.BytesIO(), io.BytesIO()
    # `savefig` would draw once more before, for a layout that is done.
    figure.set_dpi(mpl.rcParams["savefig.dpi"])
    about = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(svg, metadata=about)  # type: ignore[no-untyped-call]
    if with_pdf:
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return Rendered(svg=svg.getvalue(), pdf=pdf.getvalue() if with_pdf else None)


def drawable(text: str, limit: int = 24) -> str:
    """A name as a figure can show it: on one line, not too long, and without characters that the font lacks."""
    glyphs = _glyphs()
    shown = "".join(c if ord(c) in glyphs and c.isprintable() else "□" for c in " ".join(text.split()))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


@cache
def _glyphs() -> frozenset[int]:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())
