"""The page of a study."""

import re
from functools import partial

from training.report.study_figures import draw_cost, draw_dots, draw_pairs, draw_shares
from training.report.study_page import StudyFigure, StudyPage, StudyTable, format_cell, render_study_page


def page(**changes):
    rows = [{"run": "a1", "genre": "<b>Rock</b>", "accuracy": 0.5, "seed": None}, {"run": "b2", "error": "x"}]
    about = {
        "study": "genres",
        "question": "Which?",
        "answer": "Both & neither.",
        "warnings": ["Leakage: <i>yes</i>"],
        "figures": [StudyFigure("dots", "Dots", partial(draw_dots, {"svm": [0.5, 0.6]}, marks={"svm": 0.5}))],
        "tables": [StudyTable("A table", ("name", "value"), [("x", 1.5)])],
        "columns": ["run", "genre", "accuracy", "seed", "error", "command"],
        "rows": rows,
        "settings": {"folds": 5},
    }
    return StudyPage(**{**about, **changes})


def test_a_page_contains_all_and_loads_nothing():
    files = render_study_page(page())
    html = files["index.html"].decode()
    assert set(files) == {"dots.png", "index.html"}
    assert not re.search(r"(src|srcset|href)=\"(?!data:)", html)
    assert "default-src 'none'" in html
    for text in (
        "Both &amp; neither.",
        "Leakage: &lt;i&gt;yes&lt;/i&gt;",
        "&lt;b&gt;Rock&lt;/b&gt;",
        'data-value="0.5"',
    ):
        assert text in html


def test_values_are_shown_as_people_read_them():
    values = [None, True, 0.12345, 1234.5, 0.00001, 12_345, "text"]
    assert [format_cell(it) for it in values] == ["", "yes", "0.123", "1,234", "1.0e-05", "12,345", "text"]


def test_every_kind_of_figure_is_drawn():
    from training.report.style import LIGHT

    drawn = [
        draw_pairs(["Rock", "Jazz"], {("Jazz", "Rock"): 0.8}, LIGHT),
        draw_shares({"learning_rate": 0.7, "width": 0.3}, LIGHT),
        draw_cost({"svm": (0.0, 0.5), "resnet18": (90.0, 0.6)}, "seconds", LIGHT),
    ]
    assert all(png.startswith(b"\x89PNG") for png in drawn)
