import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import BadInput
from store.fs.files import read_bytes
from store.tagging.corrections.plan import CorrectedPlan
from store.tagging.predictions import (
    PREDICTIONS_SCHEMA,
    read_predictions,
    table_rows,
    write_predictions,
)

ROWS = [
    {
        "track_id": "a, b/ü.mp3",
        "url": "/music/a, b/ü.mp3",
        "signature": "1-2-3",
        "status": "change",
        "old_genres": ["Old-Time / Historic"],
        "predicted_genres": ["Rock"],
        "genres": ["Rock", "Old-Time / Historic"],
        "custom_tags": {"GENRE_CONFIDENCE": "0.87"},
        "confidence": 0.8712,
        "probabilities": [0.5, 0.25],
        "model_version": "v",
    },
    {
        "track_id": "c.mp3",
        "url": "/music/c.mp3",
        "status": "rejected",
        "reason": "empty",
        "detail": "0 bytes",
    },
]


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=PREDICTIONS_SCHEMA)


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("s3_url")


def test_parts_become_one_file_that_comes_back_some_rows_at_a_time(tmp_path):
    url = f"{tmp_path}/run/predictions.parquet"
    parts = [table(ROWS[0]), table(ROWS[1]), table(ROWS[0])]
    write_predictions(url, f"{tmp_path}/run/x.csv", parts, {"source": "/music"})
    about, tables = read_predictions(url, 2)
    assert about == {"source": "/music"}
    found = list(tables)
    assert [len(it) for it in found] == [2, 1]
    assert table_rows(pa.concat_tables(found)) == table_rows(table(ROWS[0], ROWS[1], ROWS[0]))


def test_the_file_may_have_gone_through_other_hands(tmp_path):
    url = f"{tmp_path}/predictions.parquet"
    columns = (
        "genres",
        "status",
        "url",
        "signature",
        "track_id",
    )  # fewer, in another order, and one of theirs
    mine = table(*ROWS).select(columns).append_column("remark", pa.array(["a", "b"]))
    pq.write_table(
        mine.set_column(0, "genres", pa.array([["Jazz"], None], pa.large_list(pa.large_string()))), url
    )
    about, (found,) = read_predictions(url, 10)
    assert "source" not in about
    assert found.schema.equals(PREDICTIONS_SCHEMA)
    assert found["genres"].to_pylist() == [["Jazz"], None]
    assert found["track_id"].to_pylist() == [row["track_id"] for row in ROWS]
    assert found["confidence"].null_count == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; wanted the predictions.parquet of a tagging run"),
        (b"track,genre\n1,Rock\n", "not readable as Parquet"),
        (table(ROWS[0]).drop_columns("signature"), "has no column signature; wanted the predictions.parquet"),
    ],
)
def test_what_cannot_be_applied_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(content, path)
    with pytest.raises(BadInput, match=message) as raised:
        read_predictions(str(path), 10)
    assert "\n" not in str(raised.value)


def test_a_line_a_file_for_a_person_to_read(folder):
    url = f"{folder}/predictions.csv"
    write_predictions(f"{folder}/x.parquet", url, [table(ROWS[0]), table(ROWS[1])], {"run": "R1"})
    text = read_bytes(url).decode()
    assert text.startswith("\ufeff"), "Excel reads UTF-8 only if it begins so"
    first, second = csv.DictReader(text[1:].splitlines())
    assert first == {
        "track_id": "a, b/ü.mp3",
        "status": "change",
        "old_genres": "Old-Time / Historic",
        "genres": "Rock; Old-Time / Historic",
        "apply": "yes",
        "predicted_genres": "Rock",
        "confidence": "0.871",
        "reason": "",
        "detail": "",
        "run": "R1",
    }
    assert second["apply"] == "no"
    assert (second["status"], second["detail"], second["confidence"]) == ("rejected", "0 bytes", "")


def planned(tmp_path, *rows, source="", about=None):
    url = f"{tmp_path}/predictions.parquet"
    write_predictions(url, f"{tmp_path}/x.csv", [table(*rows)], about or {})
    plan = CorrectedPlan(url, source, f"{tmp_path}/runs")
    assert plan.source == (source or about["source"])
    return [row for part in plan.tables(10) for row in table_rows(part)]


def test_a_plan_is_what_is_to_be_changed_and_what_a_copy_got(tmp_path):
    rows = [
        ROWS[0],
        {**ROWS[0], "track_id": "b", "status": "copied", "detail": "/copies/a"},
        {**ROWS[0], "track_id": "c", "status": "unsure"},
    ]
    for how in ({"source": "/music"}, {"about": {"source": "/music"}}):
        found = planned(tmp_path, *rows, **how)
        assert [(row["status"], row["detail"]) for row in found] == [("change", None)] * 2 + [
            ("unsure", None)
        ]
    with pytest.raises(BadInput, match="names no source; name the files with --source"):
        planned(tmp_path, *rows)


@pytest.mark.parametrize("url", ["/music/a.mp3", "s3://bucket/music/a.mp3"])
def test_a_plan_of_one_file_leads_to_that_file_alone(tmp_path, url):
    rows = [{**ROWS[0], "track_id": it, "url": url.replace("a.mp3", it)} for it in ("a.mp3", "b.mp3")]
    found = planned(tmp_path, *rows, source=url)
    assert [(row["status"], row["reason"]) for row in found] == [
        ("change", None),
        ("skipped", "outside-root"),
    ]


@pytest.mark.parametrize(
    "url", ["/music/../x.mp3", "/musical/x.mp3", "s3://music/x.mp3", "{inside}/link.mp3"]
)
def test_a_plan_never_leads_out_of_its_source(tmp_path, url):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.mp3").symlink_to(tmp_path / "outside.mp3")
    source = str(inside) if "inside" in url else "/music"
    (row,) = planned(tmp_path, {**ROWS[0], "url": url.format(inside=inside)}, source=source)
    assert (row["status"], row["reason"]) == ("skipped", "outside-root")


@pytest.mark.parametrize(
    "custom_tags",
    [
        pa.array([[["GENRE_CONFIDENCE", "0.87"]], []]),
        pa.array([[{"key": "GENRE_CONFIDENCE", "value": "0.87"}], None]),
        pa.array([[("GENRE_CONFIDENCE", "0.87")], []], pa.map_(pa.string(), pa.string())),
    ],
    ids=["lists", "structs", "map"],
)
def test_notes_come_back_from_programs_that_know_no_maps(tmp_path, custom_tags):
    url = f"{tmp_path}/predictions.parquet"
    mine = table(*ROWS)
    mine = mine.set_column(mine.schema.get_field_index("custom_tags"), "custom_tags", custom_tags)
    mine = mine.set_column(
        mine.schema.get_field_index("confidence"), "confidence", pa.array([0.5, float("nan")])
    )
    pq.write_table(mine, url)
    _, (found,) = read_predictions(url, 10)
    assert [row["custom_tags"] for row in table_rows(found)] == [{"GENRE_CONFIDENCE": "0.87"}, None]
    assert found["confidence"].to_pylist() == [0.5, None]


def test_a_column_of_another_kind_is_refused_by_name(tmp_path):
    url = f"{tmp_path}/predictions.parquet"
    mine = table(ROWS[0])
    place = mine.schema.get_field_index("genres")
    pq.write_table(mine.set_column(place, "genres", pa.array(["Rock"])), url)
    _, tables = read_predictions(url, 10)
    with pytest.raises(BadInput, match="the column genres holds string; wanted list<"):
        list(tables)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"genres": []}, "incomplete"),
        ({"genres": None}, "incomplete"),
        ({"signature": None}, "incomplete"),
        ({"url": None}, "incomplete"),
        ({"status": None}, "incomplete"),
        ({"track_id": None}, None),
    ],
)
def test_a_row_that_lacks_something_changes_no_file(tmp_path, change, reason):
    (row,) = planned(tmp_path, {**ROWS[0], **change}, source="/music")
    assert row["track_id"]
    assert (row["status"], row["reason"]) == (("skipped", reason) if reason else ("change", None))


def test_what_was_written_before_is_not_counted_as_written_again(tmp_path):
    (row,) = planned(tmp_path, {**ROWS[0], "status": "written"}, source="/music")
    assert row["status"] == "kept"
