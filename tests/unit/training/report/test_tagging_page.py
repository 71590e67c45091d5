import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from store.tagging.predictions import PREDICTIONS_SCHEMA
from store.tagging.statistics import CHANGED_STATUSES, TaggingStatistics, count_rows
from training.report.tagging_page import (
    REASON_TEXTS,
    RunFacts,
    bar_segments,
    describe_duration,
    escape_markdown,
    headline,
    mark_invisible,
    markdown_summary,
    render_page,
    unchanged_groups,
)

MODES = ["dry-run", "write", "copy", "undo", "undo-dry-run"]
NASTY = [
    "<script>alert(1)</script>.mp3",
    "<img src=http://evil.example/x>",
    "a | b | [x](http://evil.example) *so* _so_ `so` ![i](u)",
    "# 1. \\| &amp; &#124; www.evil.example http://evil.example me@evil.example",
    "    four spaces\nand a line",
    "\u202egpj.exe",
]
VOID = {"meta", "link", "br", "img", "hr", "input"}
# fmt: off
TAGS = {
    "a", "b", "body", "dd", "details", "div", "dl", "dt", "footer", "g", "h1", "h2", "head", "header", "html", "i",
    "li", "line", "meta", "p", "pre", "rect", "section", "span", "style", "summary", "svg", "table", "tbody", "td",
    "text", "th", "thead", "title", "tr", "ul",
}
# fmt: on


class Page(HTMLParser):
    """Parse a page, and fail where its tags do not match."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, f"<{tag}> is not expected"
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "style")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def facts(mode="dry-run", **others) -> RunFacts:
    plain_facts = {
        "name": "20261127T150102-5f3a91c2",
        "source": "/music",
        "seconds": 8_423.2,
        "predictions": "runs/20261127T150102-5f3a91c2/predictions.parquet",
        "csv_url": "runs/20261127T150102-5f3a91c2/predictions.csv",
    }
    return RunFacts(mode=mode, **{**plain_facts, **others})


def count(rows) -> TaggingStatistics:
    return count_rows(pa.Table.from_pylist(list(rows), schema=PREDICTIONS_SCHEMA))


def text_of(markdown) -> tuple[str, set[str]]:
    """Parse Markdown as the Prefect UI does: its text, and the types of its tokens."""
    parsed = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    inline = [child for token in parsed for child in token.children or ()]
    blocks = {token.type for token in parsed}
    return "\n".join(token.content for token in inline if token.type == "text"), {
        *(token.type for token in inline),
        *blocks,
    }


rows = st.lists(
    st.fixed_dictionaries(
        {
            "track_id": st.sampled_from(NASTY) | st.text(max_size=9),
            "status": st.sampled_from([*CHANGED_STATUSES, "kept", "unsure", "rejected", "skipped", "odd"]),
            "reason": st.sampled_from([None, *NASTY, *REASON_TEXTS]),
            "detail": st.none() | st.sampled_from(NASTY),
            "old_genres": st.none() | st.lists(st.sampled_from(["Rock", *NASTY]), max_size=2),
            "genres": st.none() | st.lists(st.sampled_from(["Rock", *NASTY]), max_size=2),
            "confidence": st.none() | st.floats(0, 1),
        }
    ),
    max_size=12,
)


@given(drawn=rows, mode=st.sampled_from(MODES), expected=st.sampled_from(NASTY))
@settings(max_examples=60, deadline=None)
def test_any_run_is_a_complete_page_without_external_resources(drawn, mode, expected):
    content = render_page(
        count(drawn),
        facts(
            mode,
            source=expected,
            model=expected,
            notes=(expected, expected),
            commands=((expected, expected),),
            settings={"a": {expected: expected, "b": (1, 2)}},
        ),
    )
    page = Page(content)
    for link in page.links:
        assert link in ("predictions.parquet", "predictions.csv") or re.fullmatch(
            r"background: var\(--\w+\)", link
        )
    assert content.count(b"<style>") == 1
    assert b"@import" not in content
    assert b"url(" not in content
    assert b"default-src 'none'" in content
    assert mark_invisible(expected).split("\n")[0] in page.text
    assert not re.search(r"[\x00-\x08\u202e]", page.text)


@given(drawn=rows, mode=st.sampled_from(MODES), expected=st.sampled_from(NASTY))
@settings(max_examples=60, deadline=None)
def test_names_are_escaped_in_markdown(drawn, mode, expected):
    whole = count(drawn)
    text, kinds = text_of(
        markdown_summary(whole, facts(mode, notes=(expected,), commands=((expected, expected),)))
    )
    assert not kinds & {
        "html_block",
        "html_inline",
        "link_open",
        "image",
        "em_open",
        "strong_open",
        "code_inline",
        "ordered_list_open",
        "bullet_list_open",
        "fence",
    }
    for sample in whole.changes:
        assert mark_invisible(" ".join(sample.track_id.split())) in text


@given(text=st.text() | st.sampled_from(NASTY))
@example("\0")
@example("1. one")
@example("- x")
@example("***")
def test_escaped_text_means_itself(text):
    shown, _ = text_of(f"| {escape_markdown(text)} |\n| --- |\n")
    assert shown == mark_invisible(" ".join(text.split()))


@pytest.mark.parametrize(
    ("mode", "changed", "others", "expected"),
    [
        ("dry-run", 1_234, 98_766, "1,234 of 100,000 files would be tagged"),
        ("write", 1, 2, "1 of 3 files was tagged"),
        ("write", 0, 3, "None of 3 files were tagged"),
        ("copy", 2, 0, "2 of 2 files were copied and tagged"),
        ("undo", 3, 0, "3 of 3 files have their old tags back"),
        ("undo-dry-run", 1, 0, "The file would get its old tags back"),
        ("write", 0, 1, "No file was tagged"),
        ("dry-run", 0, 0, "No file was found"),
    ],
)
def test_the_headline_states_the_result(mode, changed, others, expected):
    assert headline(TaggingStatistics(statuses={"change": changed, "kept": others}), facts(mode)) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.2, "3 files in 0 s"),
        (2.0, "3 files in 2 s, 1.5 files/s"),
        (61, "3 files in 1 min 1 s, 0.0 files/s"),
        (8_423, "3 files in 2 h 20 min, 0.0 files/s"),
    ],
)
def test_durations_are_in_units_of_their_size(seconds, expected):
    assert describe_duration(TaggingStatistics(statuses={"kept": 3}), facts(seconds=seconds)) == expected


@given(drawn=rows)
@settings(deadline=None)
def test_every_file_is_in_the_bar_and_under_one_reason(drawn):
    whole = count(drawn)
    bar = bar_segments(whole)
    assert sum(part.files for part in bar) == whole.files == len(drawn)
    assert sum(group.files for group in unchanged_groups(whole)) == whole.files - whole.changed
    for group in unchanged_groups(whole):
        assert all(
            (sample.status, sample.reason) == (group.status, group.reason) for sample in group.examples
        )
        assert 0 < len(group.examples) <= group.files


def test_a_page_of_many_files_is_small_and_shows_the_main_numbers():
    change = {"status": "change", "confidence": 0.8}
    reject = {"status": "rejected", "reason": "truncated", "detail": "3 s"}
    drawn = [{"track_id": f"{n}.mp3", "genres": [f"Genre {n % 60:02}"], **change} for n in range(3_000)]
    drawn += [{"track_id": f"x{n}.mp3", **reject} for n in range(900)]
    content = render_page(
        count(drawn), facts(commands=(("write it", "spectrogram-one tag --apply X --write"),))
    )
    page = Page(content)
    assert len(content) < 70_000
    for expected in (
        "3,000 of 3,900 files would be tagged",
        "To write it: spectrogram-one tag --apply X --write",
        "20 more genres, each in 50 files or fewer",
        "most of the audio is missing",
        "50 of 3,000, drawn from all of them",
        "900",
    ):
        assert expected in " ".join(page.text.split())
    assert content.count(b"<tr>") == 1 + 60 + 1 + 1 + 50 + 1 + 1
