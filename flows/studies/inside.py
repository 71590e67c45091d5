"""What a network responds to, and what a catalogue looks like by sound alone.

Wrong predictions with their saliency, the maximum of each genre, typical and odd tracks, neighbours, and a map.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.model_stages.feature_table import store_feature_table
from flows.study_runs.candidates import make_candidates, needs_features
from flows.study_runs.study import Conclusion, Row, RunResult, Study, StudyContext, StudyRun
from flows.study_runs.trials import make_splits, plan_trials, study_genres, study_tracks
from store.errors import BadInput
from store.fs.csv_rows import quote_formula, to_csv
from store.fs.files import join
from training.evaluation.tables import PREDICTION_COLUMNS, TrackResult, evaluate_tracks
from training.feature_machine.fitting import join_catalogue
from training.fit.run import TrainingRun, read_run
from training.inference.stored_tracks import run_identity
from training.interpretation.catalogue_view import sample_catalogue, view_catalogue
from training.interpretation.explanations import NetworkExplainer
from training.interpretation.view_tables import (
    NEIGHBOUR_COLUMNS,
    TYPICAL_COLUMNS,
    CatalogueView,
    list_neighbours,
    list_typical_tracks,
    share_of_agreeing_neighbours,
)
from training.report.findings import describe_prediction, track_label, worst_tracks
from training.report.formatting import percent
from training.report.interpretation.map_page import MAP_FILE, MappedTrack, render_map
from training.report.interpretation.saliency_figures import SalientCrop, draw_maxima, draw_saliency
from training.report.study_page import StudyFigure, StudyTable
from training.studies.genre_sets import select_tracks

NETWORK, CATALOGUE = "network", "catalogue"  # the parts, a run each
MAX_MAXIMA = 16  # genres whose maximum is drawn
TYPICAL_TRACKS = 3  # of each genre, and as many odd ones
TEXTS = ("track_id", "artist", "title", "neighbour", "neighbour_artist", "neighbour_title")


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan the training of a network and the view of the catalogue. Raises: BadInput for a model without a network."""
    settings, tracks = context.settings, study_tracks(context)
    genres, _ = study_genres(context, tracks, settings.splits)
    if len(settings.models) > 1 or needs_features(settings.models[0]):
        raise BadInput(
            f"--models {', '.join(settings.models)}: this study explains one network; name one, as shallow"
        )
    split = next(make_splits(context, tracks, sorted(genres), settings.splits[:1]))
    network = next(plan_trials(context, split, {"part": NETWORK}, make_candidates(settings)))
    return [_keeping_network(network), catalogue_run(context, select_tracks(tracks, genres))]


def _keeping_network(run: StudyRun) -> StudyRun:
    def prepare() -> dict[str, Any]:
        arguments = dict(run.prepare())
        return {**arguments, "trial": replace(arguments["trial"], keep_network=True)}

    return replace(run, prepare=prepare)


def catalogue_run(context: StudyContext, tracks: pa.Table) -> StudyRun:
    """Return the run that compares tracks by sound: all of them, or a sample of many."""
    seed = context.settings.seeds[0]
    sampled = sample_catalogue(tracks, seed).select(["track_id", "artist", "album", "genre_top"])

    def prepare() -> dict[str, Any]:
        ids = sampled["track_id"].to_pylist()
        url = store_feature_table(context.cluster, ids, context.snapshot, context.root, context.musicnn)
        return {"tracks": sampled, "features_url": url, "seed": seed}

    about = {"part": CATALOGUE, "seed": seed, "mapped": len(sampled), "left_out": len(tracks) - len(sampled)}
    return StudyRun(about, body=run_catalogue, prepare=prepare)


def run_catalogue(tracks: pa.Table, features_url: str, seed: int) -> RunResult:
    """Compare tracks by sound: the body of a run. Its table is VIEW_SCHEMA."""
    table = view_catalogue(tracks, features_url, seed)
    agreeing = share_of_agreeing_neighbours(CatalogueView(table, join_catalogue(table, _titled(tracks))))
    return RunResult({"neighbour_agreement": agreeing}, table=table)


def _titled(tracks: pa.Table) -> pa.Table:
    return tracks.append_column("title", pa.nulls(len(tracks), pa.string()))


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """Draw what the network responds to, and list and map the catalogue."""
    _, notes = study_genres(context, study_tracks(context), context.settings.splits)
    parts = {row["part"]: row for row in rows}
    conclusion = Conclusion(answer="", warnings=notes)
    wrong: list[TrackResult] = []
    if NETWORK in parts:
        wrong, explained = explain_network(context, parts[NETWORK])
        conclusion = merge(conclusion, explained)
    if CATALOGUE in parts:
        conclusion = merge(conclusion, describe_catalogue(context, parts[CATALOGUE], wrong))
    return conclusion if conclusion.answer else replace(conclusion, answer="No run has finished.")


def merge(one: Conclusion, other: Conclusion) -> Conclusion:
    """Return two conclusions as one."""
    return Conclusion(
        answer=" ".join(filter(None, (one.answer, other.answer))),
        warnings=[*one.warnings, *other.warnings],
        figures=[*one.figures, *other.figures],
        tables=[*one.tables, *other.tables],
        files={**one.files, **other.files},
    )


def explain_network(context: StudyContext, row: Row) -> tuple[list[TrackResult], Conclusion]:
    """Return the wrong predictions on test tracks, the worst first, and what the network responds to."""
    folder = join(context.run_folder(row["run"]), "training")
    run, tracks = read_run(folder)
    explainer = NetworkExplainer(folder, run_identity(run, context.snapshot), context.snapshot)
    results = test_results(context, row, run)
    shown, are_wrong = worst_tracks(results)
    wrong = sorted((it for it in results if not it.correct), key=lambda it: it.truth_probability)
    training = tracks.filter(pc.equal(tracks["split"], "training"))["track_id"].to_pylist()
    answer = (
        f"{row['model']} predicts {len(results) - len(wrong):,} of {len(results):,} test tracks correctly; "
        f"the figures show what its {'worst errors rest' if are_wrong else 'least certain predictions rest'} on."
    )
    return wrong, Conclusion(
        answer=answer,
        figures=[
            saliency_figure(explainer, shown, run, are_wrong=are_wrong),
            maxima_figure(explainer, training, run),
        ],
        tables=[_wrong_table(wrong)],
        files={"wrong_predictions.csv": _csv(PREDICTION_COLUMNS, [_prediction_row(each) for each in wrong])},
    )


def test_results(context: StudyContext, row: Row, run: TrainingRun) -> list[TrackResult]:
    """Return the results of the test tracks of a run."""
    table = context.read_run_table(row["run"])
    catalogue = join_catalogue(table, context.snapshot.tracks)
    table = table.append_column("title", catalogue["title"]).append_column(
        "split", pa.array(["test"] * len(table))
    )
    return evaluate_tracks(table, run.genres, "top")


def saliency_figure(
    explainer: NetworkExplainer, shown: Sequence[TrackResult], run: TrainingRun, *, are_wrong: bool
) -> StudyFigure:
    """Return the figure of what predictions rest on."""
    crops = []
    for result in shown:
        truth, predicted = run.genres.index(result.truth[0]), run.genres.index(result.predicted[0])
        found = explainer.explain(result.track_id, truth, predicted)
        crops.append(
            SalientCrop(
                name=track_label(result),
                caption=describe_prediction(result),
                truth=result.truth[0],
                predicted=result.predicted[0],
                mel_FM=found.mel_FM,
                truth_saliency_FM=found.truth_saliency_FM,
                predicted_saliency_FM=found.predicted_saliency_FM,
            )
        )
    what = "The most wrong predictions" if are_wrong else "The least certain predictions; none is wrong"
    caption = (
        f"{what}: the crop with the greatest probability of the predicted genre, with both genres and their "
        "probabilities for the whole track. Beside it, the parts that raise the logit of either genre are bright "
        "(Grad-CAM)."
    )
    return StudyFigure("saliency", caption, partial(draw_saliency, crops, explainer.identity.mel))


def maxima_figure(explainer: NetworkExplainer, training: Sequence[str], run: TrainingRun) -> StudyFigure:
    """Return the figure of the spectrograms with the greatest logits."""
    start_FM = explainer.mean_level(training, run.settings.seed)
    maxima = {
        genre: explainer.maximum(index, start_FM) - start_FM
        for index, genre in enumerate(run.genres[:MAX_MAXIMA])
    }
    caption = (
        "Activation maximisation: what is added to noise at the mean level of the training tracks to raise the "
        "logit of each genre most. Red is louder, blue quieter."
    )
    return StudyFigure("maxima", caption, partial(draw_maxima, maxima, explainer.identity.mel))


def describe_catalogue(context: StudyContext, row: Row, wrong: Sequence[TrackResult]) -> Conclusion:
    """Return the map of the catalogue, its typical and odd tracks, and the neighbours of the wrong predictions."""
    table = context.read_run_table(row["run"])
    seen = CatalogueView(table, join_catalogue(table, context.snapshot.tracks))
    typical, neighbours = list(list_typical_tracks(seen, TYPICAL_TRACKS)), list(list_neighbours(seen))
    of_wrong = list(list_neighbours(seen, [it.track_id for it in worst_tracks(list(wrong))[0]]))
    answer = (
        f"By sound alone, {percent(row['neighbour_agreement'])} of {len(table):,} tracks have a track of their own "
        f"genre as their nearest by another artist. {MAP_FILE} is the map."
    )
    return Conclusion(
        answer=answer,
        warnings=[f"The map is of a random sample: {row['left_out']:,} tracks are not on it."]
        if row["left_out"]
        else [],
        tables=[
            StudyTable(
                "The most typical and the most odd tracks of each genre",
                TYPICAL_COLUMNS,
                _cells(typical, TYPICAL_COLUMNS),
            ),
            StudyTable(
                "Nearest tracks by other artists, of the most wrong predictions",
                NEIGHBOUR_COLUMNS,
                _cells(of_wrong, NEIGHBOUR_COLUMNS),
            ),
        ],
        files={
            MAP_FILE: draw_map(seen),
            "typical_tracks.csv": _csv(TYPICAL_COLUMNS, typical),
            "neighbours.csv": _csv(NEIGHBOUR_COLUMNS, neighbours),
        },
    )


def draw_map(seen: CatalogueView) -> bytes:
    """Return the page of the map."""
    tracks = [MappedTrack(**track) for track in seen.tracks()]
    position_T2 = np.column_stack([seen.view[name].to_numpy() for name in ("x", "y")])
    lede = (
        f"{len(tracks):,} tracks, placed by sound alone (t-SNE on the features of the feature machine): near "
        "points sound alike, the distance of far ones means nothing. Colours and shapes are the genres "
        "that the files have."
    )
    return render_map(tracks, position_T2, lede)


def _wrong_table(wrong: Sequence[TrackResult]) -> StudyTable:
    columns = ("artist", "title", "truth", "predicted", "p(truth)", "p(predicted)", "track")
    rows = [
        (
            it.artist, it.title, it.truth[0], it.predicted[0], it.truth_probability, it.predicted_probability,
            it.track_id,
        )
        for it in wrong
    ]  # fmt: skip
    return StudyTable("Wrong predictions, the least probable truth first", columns, rows)


def _prediction_row(result: TrackResult) -> dict[str, object]:
    return {**vars(result), "truth": result.truth[0], "predicted": result.predicted[0], "correct": "wrong"}


def _cells(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> list[list[object]]:
    return [[row[name] for name in columns] for row in rows]


def _csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as CSV; texts of other people that a spreadsheet program would take for formulas are marked."""
    return to_csv(
        columns, ({**row, **{it: quote_formula(row[it]) for it in TEXTS if row.get(it)}} for row in rows)
    )


STUDY = Study(
    name="inside",
    question="What does a network respond to, and which tracks sound alike?",
    plan=plan,
    conclude=conclude,
    defaults={"models": ("short-chunk-resnet",), "splits": ("official",), "seeds": (0,), "split_seeds": (0,)},
    quick={"models": ("shallow",), "training": {"epochs": 4}},
)
