import csv
import io

import numpy as np
import pyarrow as pa

from training.label_audit.conflicts import audit_csv, count_pairs, list_audited_tracks
from training.label_audit.label_quality import assess_labels

TRACKS = pa.table(
    {
        "track_id": ["1", "2", "3", "4"],
        "artist": ["a", None, "=cmd()", "d"],
        "album": [None] * 4,
        "title": ["one", "two", "three", None],
    },
    schema=pa.schema([(name, pa.string()) for name in ("track_id", "artist", "album", "title")]),
)


def audited():
    probability_TG = np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95], [0.6, 0.4]])
    return list_audited_tracks(
        assess_labels(probability_TG, np.array([0, 1, 0, 0])), TRACKS, ("Folk", "Rock")
    )


def test_every_track_is_in_the_list_once_the_conflict_first():
    found = audited()
    assert [(each.rank, each.track_id) for each in found] == [(1, "3"), (2, "2"), (3, "4"), (4, "1")]
    assert (found[0].given, found[0].suggested, found[0].confident) == ("Folk", "Rock", True)
    assert count_pairs(found) == [("Folk", "Rock", 1)]


def test_the_csv_has_no_formula_and_no_text_for_what_is_missing():
    rows = list(csv.DictReader(io.StringIO(audit_csv(audited()).decode())))
    assert rows[0]["artist"] == "'=cmd()"
    assert [row["conflict"] for row in rows] == ["yes", "no", "no", "no"]
    assert rows[1]["artist"] == ""
    assert float(rows[0]["suggested_probability"]) == 0.95
