"""The report of an evaluation: tables, figures and one page that holds all of it."""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.mel.settings import MelSettings
from store.fs.files import write_atomic
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, Calibration, Target
from training.evaluation.held_out_predictions import to_matrix
from training.evaluation.metrics import Scores, reliability
from training.evaluation.tables import (
    SplitResult,
    TrackResult,
    evaluate_tracks,
    metrics_json,
    predictions_csv,
    rejects_csv,
    results_csv,
    score_splits,
)
from training.evaluation.test_set_use import earlier_versions
from training.report.dotted_names import flatten
from training.report.figures import (
    Panel,
    draw_confusion_matrix,
    draw_genre_bars,
    draw_learning_curves,
    draw_spectrograms,
)
from training.report.score_figures import MAX_SHOWN_GENRES, draw_precision_recall, draw_reliability
from training.report.style import DARK, DPI, LIGHT, Theme

MAX_SHOWN_TRACKS = 6
MAX_PAGE_REJECTS = 500  # a browser shows so many rows with ease; rejects.csv has all
FEW_TRACKS = 100
FEW_ARTISTS = 20
CSS_DPI = 96
ReadMel = Callable[[str], NDArray[np.float32]]
Images = dict[str, dict[str, bytes]]


def write_report(
    folder: Path,
    *,
    name: str,
    predictions: pa.Table,
    genres: Sequence[str],
    target: Target,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    about: Mapping[str, Any],
    rejects: Sequence[Mapping[str, Any]],
    mel: MelSettings,
    read_mel: ReadMel,
    calibration: Calibration = Calibration(),  # noqa: B008  it is frozen
    notes: Sequence[str] = (),
    test_use: Mapping[str, Any] | None = None,
) -> Path:
    """Write tables, figures and report.html about one model into a folder; give the page's path.

    `name` is the model's, and that of its rows in results.csv. `predictions` is as
    `results.evaluate_tracks` wants it; `history` has a dict for each epoch, and may be empty;
    `rejects` have track_id, reason and detail; `notes` say what could be fitted for the
    `calibration`, `test_use` is as `holdout.record_test_use` gives it. The page is written last.

    Raises: BadInput if there is no test track.
    """
    answers = evaluate_tracks(predictions, genres, target, calibration)
    results = score_splits(predictions, genres, target, calibration)
    doubts = list(caveats(results["test"], test_use, fitted=calibration != Calibration()))
    shown, shown_are_wrong = worst_tracks([answer for answer in answers if answer.split == "test"])
    panels = [_panel(answer, read_mel(answer.track_id)) for answer in shown]
    images = {
        kind: {
            file: draw()
            for file, draw in [
                *_figures(results["test"].scores, history, best_epoch, panels, mel, theme),
                *_trust_figures(results["test"].scores, predictions, genres, calibration, theme),
            ]
        }
        for kind, theme in (("light", LIGHT), ("dark", DARK))
    }
    page = _page(
        name=name,
        target=target,
        results=results,
        test=results["test"],
        images=images,
        shown=shown,
        shown_are_wrong=shown_are_wrong,
        best_epoch=best_epoch,
        about={name: _format_setting(value) for name, value in flatten(about)},
        rejects=rejects[:MAX_PAGE_REJECTS],
        reasons=Counter(str(reject["reason"]) for reject in rejects),
        caveats=doubts,
        notes=notes,
        test_use=test_use,
        earlier_versions=earlier_versions(test_use) if test_use else [],
        times=time_shares(history),
        never=UNREACHABLE_THRESHOLD,
        shown_genres=MAX_SHOWN_GENRES,
        confusions=confusions(results["test"].scores),
    )
    files = {
        "metrics.json": metrics_json(name, results, genres, target, doubts),
        "results.csv": results_csv(name, results),
        "held_out_predictions.csv": predictions_csv(answers, genres),
        "rejects.csv": rejects_csv(rejects),
        **images["light"],
        "report.html": page.encode(),
    }
    for file, content in files.items():
        write_atomic(str(folder / file), content)
    return folder / "report.html"


def worst_tracks(answers: Sequence[TrackResult]) -> tuple[list[TrackResult], bool]:
    """Choose the tracks worth a look: the wrongest; if none is wrong, the least certain right ones.

    Tells also whether they are wrong ones.
    """
    wrong = sorted((a for a in answers if not a.correct), key=lambda a: a.truth_probability)
    unsure = sorted(answers, key=lambda a: a.predicted_probability)
    return (wrong or unsure)[:MAX_SHOWN_TRACKS], bool(wrong)


def headline(scores: Scores) -> str:
    """Put the accuracy in words."""
    what = "tracks right" if scores.target == "top" else "tracks with all their genres right"
    return f"{scores.correct:,} of {scores.tracks:,} {what}"


def caveats(
    result: SplitResult, test_use: Mapping[str, Any] | None = None, *, fitted: bool = False
) -> Iterator[str]:
    """Say what the scores of a split cannot show; `fitted` if a calibration was fitted on validation tracks."""
    scores, interval = result.scores, result.interval
    if test_use and (before := earlier_versions(test_use)):
        most = max(tracks for _, tracks in before)
        yield (
            f"{len(before):,} earlier {'version was' if len(before) == 1 else 'versions were'} scored on up to "
            f"{most:,} of these {test_use['tracks']:,} test tracks: whoever chose between them by these scores "
            "fitted them a little."
        )
    if fitted:
        yield (
            "Weights, temperature and thresholds were chosen on the validation tracks, so the scores of those "
            "are rosier than the truth. The test tracks chose nothing."
        )
    if scores.tracks < FEW_TRACKS:
        yield (
            f"The test set is small: one track more or less right moves the accuracy by "
            f"{percent(1 / scores.tracks)}."
        )
    if interval is None:
        yield "All test tracks are by one artist, so no interval can be given: the figure may be luck."
    elif interval.method == "exact by artist":
        yield (
            f"All answers are {'right' if scores.correct else 'wrong'}, which no resampling can vary: "
            f"the interval is the exact one for {interval.artists} independent answers, one an artist."
        )
    elif interval.artists < FEW_ARTISTS:
        yield (
            f"These tracks are by {interval.artists} artists only. The interval draws artists, not tracks, "
            "and with so few of them it is rough, and rather too narrow than too wide."
        )
    if interval is not None and interval.low <= scores.chance <= interval.high:
        yield (
            f"Chance ({percent(scores.chance)}) lies within the interval: this test alone does not show that "
            "the model does better than always giving the commonest answer."
        )
    if scores.untested:
        yield (
            f"No test track has {_and(scores.untested)}: nothing is known about "
            f"{'it' if len(scores.untested) == 1 else 'them'}, and macro F1 is the mean of the others."
        )


def confusions(scores: Scores, most: int = 3) -> list[tuple[str, str, int]]:
    """List the commonest mistakes: what it was, what it was taken for, how often."""
    names = [each.genre for each in scores.genres]
    found = [
        (names[row], names[column], count)
        for row, counts in enumerate(scores.confusion or ())
        for column, count in enumerate(counts)
        if count and row != column
    ]
    return sorted(found, key=lambda each: -each[2])[:most]


def time_shares(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Tell what the time of a step went into, as the mean over the epochs that say so."""
    names = {
        "data_wait_share": "waiting for data",
        "compute_share": "forward and backward",
        "communication_share": "communication",
        "other_share": "other",
    }
    told = {label: [row[key] for row in history if row.get(key) is not None] for key, label in names.items()}
    return {label: float(np.mean(values)) for label, values in told.items() if values}


def percent(share: float) -> str:
    """Write a share as a percentage; with a decimal where it would else look like all or nothing."""
    whole = f"{share:.0%}"
    if whole in ("0%", "100%") and share not in (0.0, 1.0):
        whole = f"{min(max(share, 0.001), 0.999):.1%}"
    return whole.replace("%", "\N{NARROW NO-BREAK SPACE}%")


def _figures(
    test: Scores,
    history: Sequence[Mapping[str, Any]],
    best_epoch: int,
    panels: Sequence[Panel],
    mel: MelSettings,
    theme: Theme,
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    match test.target:
        case "top":
            yield "confusion_matrix.png", lambda: draw_confusion_matrix(test, theme)
        case "multi":
            yield "genre_f1.png", lambda: draw_genre_bars(test, theme)
    if history:
        yield "learning_curves.png", lambda: draw_learning_curves(history, best_epoch, theme)
    yield "wrong_tracks.png", lambda: draw_spectrograms(panels, mel, theme)


def _trust_figures(
    test: Scores, predictions: pa.Table, genres: Sequence[str], calibration: Calibration, theme: Theme
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    rows = predictions.filter(pc.equal(predictions["split"], "test"))
    truth_TG, raw_TG = to_matrix(rows, "truth") > 0, to_matrix(rows, "probabilities")
    probability_TG = calibration.calibrate(raw_TG, genres, test.target)
    before, after = (reliability(truth_TG, each, test.target) for each in (raw_TG, probability_TG))
    yield "calibration.png", lambda: draw_reliability(before, after, theme)
    if truth_TG.any():
        yield "precision_recall.png", lambda: draw_precision_recall(test, truth_TG, probability_TG, theme)


def _panel(answer: TrackResult, mel_FM: NDArray[np.float32]) -> Panel:
    return Panel(track_label(answer), _said(answer), mel_FM)


def _said(answer: TrackResult) -> str:
    """Put an answer in few words: of several genres, those that it got wrong."""
    sure, true = percent(answer.predicted_probability), percent(answer.truth_probability)
    if answer.correct:
        return f"{' + '.join(answer.truth) or 'no genre'}, heard so with {sure}"
    if len(answer.truth) == len(answer.predicted) == 1:
        return f"{answer.truth[0]} ({true}), heard as {answer.predicted[0]} ({sure})"
    missed = " + ".join(genre for genre in answer.truth if genre not in answer.predicted)
    added = " + ".join(genre for genre in answer.predicted if genre not in answer.truth)
    return "; ".join(filter(None, [missed and f"missed {missed}", added and f"wrongly heard {added}"]))


def track_label(answer: TrackResult) -> str:
    """Name a track for a person."""
    if answer.title is None:
        return answer.track_id
    return f"{answer.artist or 'unknown artist'} \N{EN DASH} {answer.title}"


def _page(*, images: Images, **context: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "track_label": track_label, "and": _and}
    uris = {kind: {file: _data_uri(png) for file, png in files.items()} for kind, files in images.items()}
    widths_px = {file: round(_width(png) * CSS_DPI / DPI) for file, png in images["light"].items()}
    template = environment.get_template("report.html.j2")
    return template.render(
        images=uris, widths_px=widths_px, headline=headline(context["test"].scores), **context
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _width(png: bytes) -> int:
    return int.from_bytes(png[16:20])  # the first field of the first chunk


def _format_setting(value: Any) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
