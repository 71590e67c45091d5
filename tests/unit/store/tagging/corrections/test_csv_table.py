"""predictions.csv goes through a spreadsheet program and is applied as its owner left it."""

import csv
import io

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import BadInput
from store.fs.csv_rows import quote_formula, unquote_formula
from store.tagging.corrections.plan import CorrectedPlan
from store.tagging.predictions import PREDICTIONS_SCHEMA, csv_cells, table_rows, write_predictions

RUN = "20261128T101010-abcd"
KNOWN = '["Rock", "Jazz", "Old-Time / Historic"]'


def row(name: str, status: str = "change", **more) -> dict:
    base = {"track_id": name, "url": f"/music/{name}", "signature": "1-2", "status": status, "old_genres": []}
    return base | ({"genres": ["Rock"]} if status in ("change", "written") else {}) | more


ROWS = [
    row("a.mp3", old_genres=["Rock; Pop"], genres=["Rock; Pop", "Jazz"]),
    row("=cmd|' /C calc'!A0.mp3"),
    row("b\x1b[31m.mp3", "unsure", confidence=0.4),
    row("c.mp3", "rejected", reason="empty", signature=None),
    row('-ü, "c".mp3', "kept", reason="has-genre", old_genres=["Ska"]),
    row("w.mp3", "written", old_genres=["Noise"]),
    row("s.mp3", "skipped", reason="read-only", genres=["Jazz"]),
]


@pytest.fixture
def folder(tmp_path):
    about = {"source": "/music", "run": RUN, "genres": KNOWN}
    tables = [pa.Table.from_pylist(ROWS[:3], schema=PREDICTIONS_SCHEMA)]
    tables.append(pa.Table.from_pylist(ROWS[3:], schema=PREDICTIONS_SCHEMA))
    run = tmp_path / "runs" / RUN
    write_predictions(f"{run}/predictions.parquet", f"{run}/predictions.csv", tables, about)
    return run


def lines_of(folder) -> list[dict[str, str]]:
    text = (folder / "predictions.csv").read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def save(path, lines, *, delimiter=",", encoding="utf-8-sig", ends="\n"):
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator=ends)
    writer.writeheader()
    writer.writerows(lines)
    path.write_bytes(text.getvalue().encode(encoding))
    return str(path)


def plan(folder, url) -> dict[str, tuple]:
    opened = CorrectedPlan(url, "", str(folder.parent))
    opened.check_genres(opened.known_genres)
    rows = [row for table in opened.tables(2) for row in table_rows(table)]
    return {row["track_id"]: (row["status"], row["genres"]) for row in rows}


def test_an_untouched_table_is_the_same_plan_as_the_parquet_file(folder):
    assert plan(folder, f"{folder}/predictions.csv") == plan(folder, f"{folder}/predictions.parquet")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_whatever_a_spreadsheet_program_makes_of_it_is_read(folder, tmp_path, delimiter, encoding, ends):
    url = save(
        tmp_path / "elsewhere.csv", lines_of(folder), delimiter=delimiter, encoding=encoding, ends=ends
    )
    assert plan(folder, url) == plan(folder, f"{folder}/predictions.parquet")


def test_corrections_are_applied(folder):
    lines = lines_of(folder)
    lines[0]["genres"] = "Rock; Pop; Old-Time / Historic"
    lines[1]["apply"] = "FALSE"
    lines[2] |= {"genres": "jazz", "apply": "TRUE"}
    lines[4] |= {"genres": "Jazz;Rock", "apply": "x"}
    lines[5] |= {"genres": "Jazz", "apply": "yes"}
    found = plan(folder, save(folder / "mine.csv", [*lines[:3], *lines[4:6]]))
    assert found == {
        "a.mp3": ("change", ["Rock; Pop", "Old-Time / Historic"]),
        "=cmd|' /C calc'!A0.mp3": ("kept", ["Rock"]),
        "b\x1b[31m.mp3": ("change", ["jazz"]),
        '-ü, "c".mp3': ("change", ["Jazz", "Rock"]),
        "w.mp3": ("change", ["Jazz"]),
    }


def test_what_was_written_is_expected_in_the_file_when_it_is_corrected(folder):
    lines = lines_of(folder)
    lines[5] |= {"genres": "Jazz", "apply": "yes"}
    opened = CorrectedPlan(save(folder / "mine.csv", lines[5:6]), "", str(folder.parent))
    assert [row["old_genres"] for row in opened.rows(9)] == [["Rock"]]


def test_no_cell_is_a_formula_or_commands_a_terminal(folder):
    data = (folder / "predictions.csv").read_bytes()
    assert b"\x1b" not in data
    for line in lines_of(folder):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in line.values())


@given(text=st.text(alphabet="'=+-@\t\rab", max_size=6))
def test_the_mark_of_a_formula_is_taken_back(text):
    assert unquote_formula(quote_formula(text)) == text
    assert not quote_formula(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def renamed(line, old, new):
    return {new if name == old else name: cell for name, cell in line.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda it: [renamed(line, "genres", "Genre") for line in it],
            "unknown column 'Genre'; known are track_id,",
        ),
        (lambda it: [renamed(line, "apply", "aply") for line in it], "unknown column 'aply'"),
        (lambda it: [{"note": "x", **line} for line in it], "unknown column 'note'"),
        (
            lambda it: [{name: line[name] for name in line if name != "apply"} for line in it],
            "has no column 'apply'; needed are track_id, genres, apply, run",
        ),
        (
            lambda it: [*it, {**it[0], "track_id": "new.mp3"}],
            "line 9: 'new.mp3' is no file of the run 20261128T",
        ),
        (lambda it: [*it, it[0]], "line 9: 'a.mp3' is in line 2 already"),
        (
            lambda it: [*it[:2], {**it[2], "run": "another"}],
            "line 4: .* is of the run another, and the rows above of 20261128T",
        ),
        (
            lambda it: [{**line, "run": "another"} for line in it],
            "is of the run another, whose predictions.parquet",
        ),
        (
            lambda it: [{**it[0], "apply": "maybe"}],
            "line 2: 'a.mp3' has 'maybe' in the column apply; wanted yes or no",
        ),
        (
            lambda it: [{**it[2], "genres": "Rock"}],
            "has corrected genres, but its column apply is no: write yes",
        ),
        (lambda it: [{**it[0], "genres": "Rock; a\x1bb"}], "is no genre: wanted printable text"),
        (
            lambda it: [{**it[0], "genres": "Rokc"}],
            "'a.mp3' is to get 'Rokc', which neither the model nor the map",
        ),
        (lambda it: [{**it[0], "genres": "Rock", "track_id": ""}], "line 2: '' is no file of the run"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(folder, change, message):
    with pytest.raises(BadInput, match=message) as raised:
        plan(folder, save(folder / "mine.csv", change(lines_of(folder))))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; wanted the predictions.csv of a tagging run"),
        (b"", "has no column 'track_id'"),
        (b"track_id,genres,apply,run\n", "has no row"),
        ("track_id,genres,apply,run\nä,Rock,yes,x\n".encode("latin-1"), "not UTF-8; save it again as"),
        (b"track_id,genres,apply,run\na,Rock,yes\n", "line 2: 3 cells for 4 columns"),
        (b"track_id,genres,apply,run,run\na,Rock,yes,x,x\n", "the column 'run' is there twice"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, message):
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        CorrectedPlan(str(path), "", str(tmp_path))


def test_a_removed_row_is_not_applied_and_blank_lines_are_none(folder):
    url = save(folder / "mine.csv", lines_of(folder)[:1])
    with open(url, "a") as file:
        file.write("\n,,,,,,,,,\n")
    assert list(plan(folder, url)) == ["a.mp3"]


def test_genres_of_the_file_and_of_the_run_may_be_written(folder):
    opened = CorrectedPlan(f"{folder}/predictions.csv", "", str(folder.parent))
    opened.check_genres(["Rock", "jazz"])
    with pytest.raises(BadInput, match=r"'a.mp3' is to get 'Jazz', which neither the model nor the map has"):
        opened.check_genres(["Rock", "Pop"])


def test_all_unknown_genres_are_named_at_once_with_the_known_ones(folder):
    lines = lines_of(folder)
    lines[0]["genres"], lines[1]["genres"] = "Rokc; Polka", "Ska"
    with pytest.raises(BadInput) as raised:
        plan(folder, save(folder / "mine.csv", lines))
    assert "'Polka'" in str(raised.value)
    assert "(nor 'Rokc', 'Ska'; they have Jazz, Old-Time / Historic, Rock)" in str(raised.value)


def test_a_name_whose_mark_of_a_formula_was_removed_is_still_that_file(folder):
    lines = lines_of(folder)
    lines[1] |= {"track_id": lines[1]["track_id"].removeprefix("'"), "genres": "Jazz"}
    assert plan(folder, save(folder / "mine.csv", lines))["=cmd|' /C calc'!A0.mp3"] == ("change", ["Jazz"])


def test_the_folder_of_a_run_is_no_table(folder):
    with pytest.raises(BadInput, match=r"a folder; name predictions\.parquet or predictions\.csv in it"):
        CorrectedPlan(str(folder), "", str(folder.parent))


def test_cells_of_a_row_are_text():
    assert all(isinstance(cell, str) for cell in csv_cells(ROWS[0]).values())
