"""What every figure is drawn on: paper, colours and letters; no pyplot, no global state.

Source of the colours: Okabe & Ito (2008), told apart with any kind of colour vision.
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
Layout = Literal["constrained", "compressed"]


@dataclass(frozen=True)
class Theme:
    """The colours of a page: what is right is blue, what is wrong vermilion."""

    paper: str
    ink: str
    faint: str
    line: str
    right: str
    wrong: str
    third: str


LIGHT = Theme("#ffffff", "#1f1e1c", "#6f6c66", "#dddad3", "#0072b2", "#d55e00", "#009e73")
DARK = Theme("#17181b", "#e9e7e2", "#9d9a94", "#37383c", "#56b4e9", "#e69f00", "#2bc49a")


def fit_label(text: str, length: int) -> str:
    """Shorten a text to one line that the figures' font can write; what it lacks becomes a box."""
    line = " ".join(unicodedata.normalize("NFC", text).split())
    drawn = "".join(letter if ord(letter) in font_characters() else "□" for letter in line)
    return drawn if len(drawn) <= length else drawn[: length - 1].rstrip() + "…"


@lru_cache(maxsize=1)
def font_characters() -> frozenset[int]:
    """List what the font that comes with matplotlib can write."""
    return frozenset(
        get_font(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")).get_charmap()
    )


def new_figure(width_in: float, height_in: float, layout: Layout = "constrained") -> Figure:
    """Give an empty figure."""
    figure = Figure(figsize=(width_in, height_in), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_axes(
    width_in: float, height_in: float, theme: Theme, layout: Layout = "constrained"
) -> tuple[Figure, Axes]:
    """Give a figure with one pair of axes."""
    figure = new_figure(width_in, height_in, layout)
    return figure, style_axes(figure.add_subplot(), theme)


def style_axes(axes: Axes, theme: Theme) -> Axes:
    """Give axes the colours of the page."""
    axes.set_facecolor(theme.paper)
    axes.tick_params(colors=theme.line, labelcolor=theme.ink, labelsize=8)
    axes.spines[:].set_color(theme.line)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return axes


def render_png(figure: Figure, theme: Theme) -> bytes:
    """Draw a figure; the same figure gives the same bytes."""
    sink = io.BytesIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily("DejaVu Sans")  # the one whose letters we know
    figure.savefig(sink, format="png", dpi=DPI, facecolor=theme.paper)
    return sink.getvalue()
