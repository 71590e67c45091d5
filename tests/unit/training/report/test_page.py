import csv
import io
import json
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from store.errors import BadInput
from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_SCHEMA
from training.evaluation.metrics import score
from training.evaluation.tables import SplitResult, evaluate_tracks
from training.report.figures import band_centres_hz, draw_confusion_matrix
from training.report.findings import across_folds, caveats, confusions, describe_prediction, worst_tracks
from training.report.formatting import percent
from training.report.page import ReportInputs, render_report
from training.report.style import LIGHT, fit_label, font_characters
from training.selection.model_choice import CandidateScore, ModelChoice, only_candidate

GENRES = ["Folk", "Hip-Hop", "R&B $x$"]
MEL = MelSettings(bands=32)
CSV_ROUNDING = 1e-6  # six decimals, and float32 probabilities
HISTORY = [
    {"epoch": 1, "train_loss": 1.1, "validation_loss": 1.2, "validation_accuracy": 0.4, "rate": 0.1},
    {"epoch": 2, "train_loss": 0.7, "validation_loss": 0.9, "validation_accuracy": 0.6},
]
REJECTS = [
    {"track_id": "200049", "reason": "empty", "detail": "0 bytes"},
    {"track_id": "200050", "reason": "not-audio", "detail": "starts with <!DOCTYPE html>"},
]


def predictions(rows: list[tuple[str, str, str | None, str | None, list[int], list[float]]]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(HELD_OUT_PREDICTIONS_SCHEMA.names, row, strict=True)) for row in rows],
        HELD_OUT_PREDICTIONS_SCHEMA,
    )


ROWS = [
    ("1", "validation", "Ann", "One", [1, 0, 0], [0.8, 0.1, 0.1]),
    ("2", "test", "Bob", "<script>alert(1)</script> $x$", [1, 0, 0], [0.1, 0.7, 0.2]),
    ("3", "test", None, "音楽の夜\n∮", [0, 1, 0], [0.6, 0.3, 0.1]),
    ("4", "test", "Cat", None, [1, 0, 0], [0.9, 0.05, 0.05]),
    ("5", "test", "=1+1", "Ezer E\u0301v", [0, 1, 0], [0.2, 0.5, 0.3]),
]


def read_mel(track_id: str) -> np.ndarray:
    return np.random.default_rng(int(track_id)).normal(-20, 15, (900 * int(track_id), 32)).astype(np.float32)


def report(folder: Path, **changes) -> Path:
    settings = {
        "name": "model-7",
        "predictions": predictions(ROWS),
        "genres": GENRES,
        "target": "top",
        "history": HISTORY,
        "best_epoch": 2,
        "about": {
            "snapshot": "a/b.json",
            "settings": {"seed": 3, "balance": "none", "model": {"width": None}},
        },
        "rejects": REJECTS,
        "mel": MEL,
        "read_mel": read_mel,
    }
    for file, content in render_report(ReportInputs(**(settings | changes))).items():
        (folder / file).write_bytes(content)
    return folder / "report.html"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset")]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return report(tmp_path_factory.mktemp("top"))


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_the_files_are_tables_figures_and_the_page(written):
    assert written.name == "report.html"
    assert {file.name for file in written.parent.iterdir()} == {
        "metrics.json", "results.csv", "held_out_predictions.csv", "rejects.csv", "confusion_matrix.png",
        "learning_curves.png", "wrong_tracks.png", "report.html", "calibration.png", "precision_recall.png",
    }  # fmt: skip
    for figure in written.parent.glob("*.png"):
        pixels = matplotlib.image.imread(figure)
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 0.02


def test_the_page_needs_no_other_file(written):
    page = Links()
    page.feed(written.read_text())
    assert "script" not in page.tags
    beside = [link for link in page.links if not link.startswith("data:image/png;base64,")]
    assert {written.parent / link for link in beside} == set(written.parent.iterdir()) - {written}
    assert sum(link.startswith("data:") for link in page.links) == 10  # five figures, by day and by night


def test_the_page_shows_scores_caveats_and_rejects(written):
    page = written.read_text().replace("\N{NARROW NO-BREAK SPACE}", " ")
    for text in (
        "2 of 4 tracks correct",
        "<b>50 %</b>",
        "The test set is small",
        "by 4 artists only",
        "No test track has R&amp;B $x$",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "音楽の夜",
        "200049",
        "0 bytes",
        "starts with &lt;!DOCTYPE html&gt;",
        "spectrogram-one tag FOLDER",
        "settings.model.width",
        "weights are those of epoch 2",
    ):
        assert text in page, text


def test_metrics_json_has_scores_by_split_and_no_nan(written):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    metrics = json.loads((written.parent / "metrics.json").read_text(), parse_constant=refuse)
    assert metrics["test"]["accuracy"] == 0.5
    assert metrics["test"]["genres"][2]["f1"] is None
    assert metrics["test"]["accuracy_interval"]["artists"] == 4
    assert metrics["validation"]["accuracy"] == 1.0
    assert metrics["validation"]["accuracy_interval"] is None


def test_results_csv_has_an_overall_row_and_one_for_each_genre(written):
    rows = table(written.parent / "results.csv")
    assert [(row["run"], row["split"], row["scope"], row["genre"]) for row in rows] == [
        ("model-7", split, *rest)
        for split in ("validation", "test")
        for rest in [("overall", ""), *(("genre", genre) for genre in GENRES)]
    ]
    assert (rows[4]["accuracy"], rows[4]["chance"], rows[4]["tracks"]) == ("0.5", "0.5", "4")
    assert (rows[7]["tracks"], rows[7]["f1"]) == ("0", "")


def test_predictions_csv_has_one_row_a_track(written):
    rows = table(written.parent / "held_out_predictions.csv")
    assert [row["track_id"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[1] == {
        "track_id": "2", "split": "test", "artist": "Bob", "title": "<script>alert(1)</script> $x$",
        "truth": "Folk", "predicted": "Hip-Hop", "correct": "wrong", "predicted_probability": "0.7",
        "truth_probability": "0.1", "p(Folk)": "0.1", "p(Hip-Hop)": "0.7", "p(R&B $x$)": "0.2",
    }  # fmt: skip


def test_the_page_shows_the_calibration_and_the_use_of_the_test_set(tmp_path):
    shares = {"data_wait_share": 0.1, "compute_share": 0.6, "communication_share": 0.2}
    history = [HISTORY[0] | shares, HISTORY[1] | shares | {"compute_share": 0.8}]
    calibration = Calibration(temperature=2.0, thresholds=(0.25, 2.0, 0.5))
    page = report(
        tmp_path,
        history=history,
        calibration=calibration,
        notes=["A temperature of 2.00."],
        test_use={
            "test_set": "abc",
            "tracks": 4,
            "evaluated_at": "now",
            "earlier_versions": [{"version": "v1", "tracks": 4}, {"version": "v2", "tracks": 3}],
        },
    ).read_text()
    shown = " ".join(page.replace("\N{NARROW NO-BREAK SPACE}", " ").split())
    for text in (
        "A temperature of 2.00.",
        "2 earlier versions were scored on up to 4 of these 4 test tracks",
        "2 earlier versions were scored on some or all of them, last v2 on 3.",
        "scores of those are too optimistic",
        '<td class="number">0.25</td>',
        '<td class="number">never</td>',
        '<td>waiting for data</td><td class="number">10 %</td>',
        '<td>forward and backward</td><td class="number">70 %</td>',
        '<td>communication</td><td class="number">20 %</td>',
    ):
        assert text in shown, text
    assert "<td>other</td>" not in shown
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "too optimistic" in " ".join(metrics["caveats"])
    assert metrics["test"]["uncalibrated_error"] != metrics["test"]["calibration_error"]
    first, second = (row["predicted_probability"] for row in table(tmp_path / "held_out_predictions.csv")[:2])
    assert float(first) == pytest.approx(0.8**0.5 / (0.8**0.5 + 2 * 0.1**0.5), abs=CSV_ROUNDING)
    assert float(second) == pytest.approx(0.7**0.5 / (0.7**0.5 + 0.1**0.5 + 0.2**0.5), abs=CSV_ROUNDING)


def test_without_a_calibration_the_page_has_nothing_on_one(written):
    page = written.read_text()
    assert "too optimistic" not in page
    assert "earlier version" not in page
    assert "Time of a training step" not in page


def test_overall_rows_have_the_interval_of_each_score(tmp_path):
    chance = np.random.default_rng(0).dirichlet(np.ones(3), 40).tolist()
    rows = [
        (str(number), "test", f"a{number}", None, np.eye(3, dtype=int)[number % 3].tolist(), chance[number])
        for number in range(40)
    ]
    report(tmp_path, predictions=predictions(rows), read_mel=lambda _: read_mel("1"))
    overall = table(tmp_path / "results.csv")[0]
    metrics = json.loads((tmp_path / "metrics.json").read_text())["test"]
    for name in ("accuracy", "macro_f1", "log_loss", "mean_average_precision"):
        interval = metrics[f"{name}_interval"]
        low, value, high = (float(overall[key]) for key in (f"{name}_low", name, f"{name}_high"))
        assert (low, high) == pytest.approx((interval["low"], interval["high"]), abs=CSV_ROUNDING)
        assert low <= value <= high
    assert overall["k"] == "2"
    assert table(tmp_path / "results.csv")[1]["average_precision"] != ""


@pytest.mark.soak
def test_rendering_twice_gives_the_same_bytes(written, tmp_path):
    again = report(tmp_path)
    for file in written.parent.iterdir():
        assert (again.parent / file.name).read_bytes() == file.read_bytes(), file.name


def test_several_genres_a_track_no_history_and_many_rejects(tmp_path):
    rows = [(*row[:4], [1, 1, 0], row[5]) for row in ROWS]
    many = [{"track_id": f"t{number}", "reason": "empty", "detail": None} for number in range(600)]
    page = report(
        tmp_path, predictions=predictions(rows), target="multi", history=[], rejects=many
    ).read_text()
    assert (tmp_path / "genre_f1.png").exists()
    assert not (tmp_path / "learning_curves.png").exists()
    assert "0 of 4 tracks with all their genres correct" in page
    assert table(tmp_path / "held_out_predictions.csv")[0]["truth"] == "Folk; Hip-Hop"
    assert "The other 100 are in" in page
    assert len(table(tmp_path / "rejects.csv")) == 600


def test_without_a_test_track_there_is_no_report(tmp_path):
    with pytest.raises(BadInput, match=r"no test track to evaluate \(splits with tracks: validation\)"):
        report(tmp_path, predictions=predictions(ROWS[:1]))
    assert list(tmp_path.iterdir()) == []


def test_the_worst_come_first_and_else_the_least_certain():
    results = [
        result for result in evaluate_tracks(predictions(ROWS), GENRES, "top") if result.split == "test"
    ]
    assert [result.track_id for result in worst_tracks(results)[0]] == ["2", "3"]
    right = [result for result in results if result.correct]
    assert [result.track_id for result in worst_tracks(right)[0]] == ["5", "4"]
    assert (worst_tracks(results)[1], worst_tracks(right)[1]) == (True, False)


def test_confusions_are_the_most_frequent_ones():
    eye = np.eye(3)
    scores = score(eye[[0, 0, 0, 1, 2]], eye[[1, 1, 2, 1, 2]], GENRES, "top")
    assert confusions(scores) == [("Folk", "Hip-Hop", 2), ("Folk", "R&B $x$", 1)]


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (None, "by one artist"),
        (Interval(0.2, 0.8, 30, "bootstrap by artist"), "Chance (50"),
        (Interval(0.6, 0.8, 7, "bootstrap by artist"), "by 7 artists only"),
        (Interval(0.6, 1.0, 7, "exact by artist"), "for 7 independent predictions"),
    ],
)
def test_caveats_name_what_the_scores_cannot_show(interval, text):
    scores = score(np.eye(2)[[0, 1] * 100], np.eye(2)[[0, 1] * 100], ["a", "b"], "top")
    (caveat,) = caveats(SplitResult(scores, {"accuracy": interval} if interval else {}, 0.0))
    assert text in caveat


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.334, "33 %"), (0.999, "99.9 %"), (0.99999, "99.9 %"), (1e-9, "0.1 %"), (1.0, "100 %"), (0.0, "0 %")],
)
def test_a_percentage_does_not_round_to_certainty(share, text):
    assert percent(share).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=60), length=st.integers(2, 50))
def test_a_label_is_one_short_line_the_font_can_draw(text, length):
    line = fit_label(text, length)
    assert len(line) <= length
    assert "\n" not in line
    assert {ord(letter) for letter in line} <= font_characters()


def test_a_label_joins_lines_and_marks():
    assert fit_label("Ezer\n E\u0301v", 40) == "Ezer \u00c9v"


def test_a_label_keeps_plain_text():
    assert fit_label("Ezer Év – Привет", 40) == "Ezer Év – Привет"  # noqa: RUF001


@pytest.mark.parametrize("band", [4, 20, 60, 127])
def test_a_tone_at_a_bands_centre_is_loudest_in_that_band(band):
    settings = MelSettings()
    hz = band_centres_hz(settings)[band]
    seconds = np.arange(8_192) / settings.sample_rate_hz
    mel_FM = log_mel(np.sin(2 * np.pi * hz * seconds).astype(np.float32), settings)
    assert abs(int(mel_FM[0].argmax()) - band) <= (1 if band < 30 else 0)


def test_figures_drawn_in_threads_are_those_drawn_alone():
    eye = np.eye(3)
    scores = score(eye[[0, 1, 2]], eye[[0, 2, 2]], GENRES, "top")
    with ThreadPoolExecutor(2) as threads:
        drawn = list(threads.map(draw_confusion_matrix, [scores] * 2))
    assert set(drawn) == {draw_confusion_matrix(scores)}


@pytest.mark.parametrize(("moved", "colour"), [(0, LIGHT.correct), (1, LIGHT.wrong)])
def test_correct_predictions_are_blue_and_wrong_ones_vermilion(moved, colour):
    eye = np.eye(3)
    png = draw_confusion_matrix(score(eye, np.roll(eye, moved, axis=0), GENRES, "top"))
    pixels = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    shade = 0.92 * np.array(to_rgb(colour)) + 0.08 * np.array(to_rgb(LIGHT.paper))
    assert 0.1 < (np.abs(pixels - shade).max(axis=2) < 0.01).mean() < 0.5


@pytest.mark.parametrize("size", [2, 31])
def test_confusion_matrices_of_any_size_can_be_drawn(size):
    eye = np.eye(size)
    names = [f"Old-Time / Historic {number}" for number in range(size)]
    png = draw_confusion_matrix(score(eye, np.roll(eye, 1, axis=0), names, "top"))
    assert matplotlib.image.imread(io.BytesIO(png)).shape[1] > 500


def test_of_several_genres_a_panel_names_the_wrong_ones():
    row = ("1", "test", "Ann", "One", [1, 1, 0], [0.9, 0.2, 0.8])
    (result,) = evaluate_tracks(predictions([row]), GENRES, "multi")
    assert describe_prediction(result) == "missed Hip-Hop; wrongly predicted R&B $x$"


def test_a_chosen_model_is_reported_beside_its_baseline_with_what_both_got_across_folds():
    def scored(name, accuracy, *, is_candidate=True):
        return CandidateScore(
            name=name, accuracy=accuracy, log_loss=1, behind=0, standard_error=0, is_candidate=is_candidate
        )

    scores = (scored("features", 0.7), scored("average", 0.8), scored("svm", 0.6, is_candidate=False))
    choice = ModelChoice(name="average", network_share=0.5, reason="", tracks=90, folds=3, scores=scores)
    assert across_folds(choice) == {"model": 0.8, "baseline": 0.6}
    assert across_folds(choice.model_copy(update={"scores": scores[:2]})) is None
    assert across_folds(only_candidate("features", "one artist")) is None
    assert across_folds(None) is None
