import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np

from training.report.interpretation.map_page import COLOURS, MappedTrack, mark_genres, render_map

HOSTILE = '</svg><script>alert(1)</script>" onload="alert(2)\u202e'


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def page_of(tracks):
    return render_map(
        tracks, np.random.default_rng(0).random((len(tracks), 2)), "near tracks sound alike"
    ).decode()


def test_each_track_is_a_point_with_its_title_and_genre():
    page = page_of([MappedTrack("1", "a", "one", "Rock"), MappedTrack("2", None, None, "Pop")])
    points = [attrs for tag, attrs in Elements(page).found if attrs.get("class", "").startswith("point")]
    assert [point["data-label"] for point in points] == ["a \N{EN DASH} one", "2"]
    assert {point["data-genre"] for point in points} == {"0", "1"}


def test_hostile_titles_are_text():
    page = page_of([MappedTrack("1", HOSTILE, HOSTILE, HOSTILE)])
    elements = Elements(page).found
    assert [tag for tag, _ in elements].count("script") == 1
    assert not any("onload" in attrs for _, attrs in elements)
    (point,) = [attrs for _, attrs in elements if attrs.get("class", "").startswith("point")]
    assert point["data-label"].startswith("</svg><script>")
    assert "\u202e" not in page


def test_nothing_is_loaded_from_outside_and_only_its_own_script_may_run():
    page = page_of([MappedTrack("1", "a", "one", "Rock")])
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", page)
    script = page.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_genres_have_different_marks_the_largest_first():
    tracks = [MappedTrack(str(row), None, None, f"genre {row % 20:02}") for row in range(45)]
    marks = mark_genres(tracks)
    assert [mark.tracks for mark in marks][:6] == [3, 3, 3, 3, 3, 2]
    assert len({(mark.colour, mark.shape) for mark in marks}) == 20
    assert marks[8].colour == COLOURS[0]
