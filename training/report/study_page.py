"""The page of a study: its answer, figures, tables, and all its runs in a table that can be sorted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.report.dotted_names import flatten
from training.report.formatting import data_uri, format_setting, make_environment
from training.report.style import DARK, LIGHT, Theme, css_width_px

PAGE_FILE = "index.html"
MAX_PAGE_ROWS = 2_000  # a browser sorts so many easily; results.csv has all
HIDDEN_COLUMNS = frozenset({"study", "command"})


@dataclass(frozen=True)
class StudyFigure:
    """A figure: the name of its file without suffix, a caption, and what draws it in the colours of a theme as PNG."""

    name: str
    caption: str
    draw: Callable[[Theme], bytes]


@dataclass(frozen=True)
class StudyTable:
    """A table: a title, the names of its columns, and the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class StudyPage:
    """What the page is made from."""

    study: str
    question: str
    answer: str
    warnings: Sequence[str]
    figures: Sequence[StudyFigure]
    tables: Sequence[StudyTable]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    files: Sequence[str] = ()  # beside the page


def render_study_page(page: StudyPage) -> dict[str, bytes]:
    """Return the page, which contains its figures, and the figures as PNG files, by name."""
    light, dark = ({each.name: each.draw(theme) for each in page.figures} for theme in (LIGHT, DARK))
    environment = make_environment()
    environment.filters["cell"] = format_cell
    html = environment.get_template("study_page.html.j2").render(
        page=page,
        columns=[name for name in page.columns if name not in HIDDEN_COLUMNS],
        rows=page.rows[:MAX_PAGE_ROWS],
        light={name: data_uri(png) for name, png in light.items()},
        dark={name: data_uri(png) for name, png in dark.items()},
        widths_px={name: css_width_px(png) for name, png in light.items()},
        settings={name: format_setting(value) for name, value in flatten(page.settings)},
    )
    return {**{f"{name}.png": png for name, png in light.items()}, PAGE_FILE: html.encode()}


def format_cell(value: Any) -> str:
    """Return the value of a cell as text."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if abs(value) >= 100:
            return f"{value:,.0f}"
        case float() if value and abs(value) < 0.001:
            return f"{value:.1e}"
        case float():
            return f"{value:.3f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
