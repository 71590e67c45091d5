"""The style of all figures: size, colours and font; no pyplot, no global state.

Source of the colours: Okabe & Ito (2008), distinguishable with any kind of colour vision.
"""

import io
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.text import Text

DPI = 200
CSS_DPI = 96
Layout = Literal["constrained", "compressed"]


@dataclass(frozen=True)
class Theme:
    """The colours of a page: correct is blue, wrong is vermilion."""

    paper: str
    ink: str
    faint: str
    line: str
    correct: str
    wrong: str
    third: str


LIGHT = Theme("#ffffff", "#1f1e1c", "#6f6c66", "#dddad3", "#0072b2", "#d55e00", "#009e73")
DARK = Theme("#17181b", "#e9e7e2", "#9d9a94", "#37383c", "#56b4e9", "#e69f00", "#2bc49a")


def fit_label(text: str, length: int) -> str:
    """Shorten a text to one line that the figures' font can draw; missing characters become a box."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    drawn = "".join(it if ord(it) in font_characters() else "□" for it in line)
    return drawn if len(drawn) <= length else drawn[: length - 1].rstrip() + "…"


@lru_cache(maxsize=1)
def font_characters() -> frozenset[int]:
    """Return the code points in the font that comes with matplotlib."""
    return frozenset(
        get_font(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")).get_charmap()
    )


def new_figure(width_in: float, height_in: float, layout: Layout = "constrained") -> Figure:
    """Return an empty figure."""
    figure = Figure(figsize=(width_in, height_in), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_axes(
    width_in: float, height_in: float, theme: Theme, layout: Layout = "constrained"
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes."""
    figure = new_figure(width_in, height_in, layout)
    return figure, style_axes(figure.add_subplot(), theme)


def style_axes(axes: Axes, theme: Theme) -> Axes:
    """Apply the colours of the page to axes, and return them."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.line, labelcolor=theme.ink, labelsize=8)
    axes.spines[:].set_color(theme.line)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return axes


def render_png(figure: Figure, theme: Theme) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    sink = io.BytesIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily("DejaVu Sans")  # the font whose characters are known
    figure.savefig(sink, format="png", dpi=DPI, facecolor=theme.paper)
    return sink.getvalue()


def css_width_px(png: bytes) -> int:
    """Return the width at which a browser shows a figure of `render_png` at its size in inches."""
    return round(int.from_bytes(png[16:20]) * CSS_DPI / DPI)  # the first field of the first chunk
