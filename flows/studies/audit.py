"""Which labels are wrong: labels against the predictions of models fitted neither on the track nor on its artist.

Some runs swap labels on purpose, in memory only: how many of these are early in the list shows what the list is worth.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from flows.model_stages.feature_table import store_feature_table
from flows.study_runs.study import Conclusion, Row, RunResult, Study, StudyContext, StudyRun
from flows.study_runs.trials import study_tracks
from training.evaluation.held_out_predictions import to_matrix
from training.feature_machine.fitting import join_catalogue
from training.label_audit.conflicts import AuditedTrack, audit_csv, count_pairs, list_audited_tracks
from training.label_audit.cross_prediction import Audit, choose_audited_genres, predict_across_folds
from training.label_audit.label_quality import LabelQuality, assess_labels
from training.label_audit.swapped_labels import measure_recall
from training.report.formatting import join_names, percent
from training.report.interpretation.recall_figure import draw_recall
from training.report.study_page import StudyFigure, StudyTable
from training.studies.genre_sets import check_genres, count_tracks, select_tracks

AUDIT_FILE = "audit.csv"
AS_GIVEN, SWAPPED = "as given", "some swapped"  # the labels of a run
FIRST_SHARE = 0.1  # of the list, which a person would read
MAX_PAGE_CONFLICTS = 100
CONFLICT_COLUMNS = (
    "rank", "artist", "title", "label", "suggested", "p(label)", "p(suggested)", "quality", "confident", "track",
)  # fmt: skip


def plan(context: StudyContext, rows: Sequence[Row]) -> list[StudyRun]:
    """Plan the audit of the labels as they are, and one with swapped labels for each seed."""
    tracks, genres, _ = audited_tracks(context)
    return [audit_run(context, tracks, genres, seed) for seed in (None, *context.settings.seeds)]


def audited_tracks(context: StudyContext) -> tuple[pa.Table, tuple[str, ...], list[str]]:
    """Return the tracks to audit, their genres, and the genres that are left out.

    Raises: BadInput for an unknown genre, or if fewer than two genres have two artists.
    """
    tracks, wanted = study_tracks(context), context.settings.genres
    counts = count_tracks(tracks)
    check_genres(wanted, list(counts))
    candidates = [genre for genre in counts if not wanted or genre in wanted]
    genres, left_out = choose_audited_genres(tracks, candidates)
    return select_tracks(tracks, genres), tuple(sorted(genres)), left_out


def audit_run(
    context: StudyContext, tracks: pa.Table, genres: tuple[str, ...], swap_seed: int | None
) -> StudyRun:
    """Return the run of an audit; without a seed, of the labels as they are."""
    settings = context.settings
    about = {
        "labels": AS_GIVEN if swap_seed is None else SWAPPED,
        "swap_share": None if swap_seed is None else settings.swap_share,
        "swap_seed": swap_seed,
        "genres": "; ".join(genres),
    }

    def prepare() -> dict[str, Audit]:
        ids = tracks["track_id"].to_pylist()
        url = store_feature_table(context.cluster, ids, context.snapshot, context.root, context.musicnn)
        audit = Audit(
            tracks=tracks.select(["track_id", "artist", "album", "genre_top"]),
            genres=genres,
            features_url=url,
            folds=settings.folds,
            fold_seeds=settings.split_seeds,
            swap_share=settings.swap_share,
            swap_seed=swap_seed,
        )
        return {"audit": audit}

    return StudyRun(about, body=run_audit, prepare=prepare)


def run_audit(audit: Audit) -> RunResult:
    """Predict across folds and rank: the body of a run. Its table is AUDIT_SCHEMA."""
    table = predict_across_folds(audit)
    quality = assess(table)
    metrics = {
        "tracks": len(table),
        "agreement": 1 - float(quality.conflicts().mean()),
        "conflicts": int(quality.conflicts().sum()),
        "confident_conflicts": int(quality.is_confident_T.sum()),
    }
    if audit.swap_seed is not None:
        found = measure_recall(quality.ranked(), table["swapped"].to_numpy(), FIRST_SHARE)
        metrics |= {"swapped": found.swapped, "found_in_first_tenth": found.found, "recall": found.recall}
    return RunResult(metrics, table=table)


def assess(table: pa.Table) -> LabelQuality:
    """Return the quality of the labels of an AUDIT_SCHEMA table."""
    return assess_labels(to_matrix(table, "probabilities"), table["given"].to_numpy())


def conclude(context: StudyContext, rows: Sequence[Row]) -> Conclusion:
    """List every track, the worst label first, and what the list found of the swapped labels."""
    checks = [row for row in rows if row["labels"] == SWAPPED]
    own = next((row for row in rows if row["labels"] == AS_GIVEN), None)
    if own is None:
        return Conclusion(answer="No run has finished.")
    table, genres = context.read_run_table(own["run"]), own["genres"].split("; ")
    catalogue = join_catalogue(table, context.snapshot.tracks)
    audited = list_audited_tracks(assess(table), catalogue, genres)
    return Conclusion(
        answer=" ".join([_describe(audited), *_describe_checks(checks, context.settings.swap_share)]),
        warnings=list(_warnings(context, catalogue, checks)),
        figures=list(_figures(context, checks)),
        tables=[_conflict_table(audited), _pair_table(audited)],
        files={AUDIT_FILE: audit_csv(audited)},
    )


def _describe(audited: Sequence[AuditedTrack]) -> str:
    confident = [track for track in audited if track.confident]
    text = (
        f"In conflict with a confident prediction of models that were fitted neither on the track nor on its artist: "
        f"{len(confident):,} of {len(audited):,} labels"
    )
    pairs = count_pairs(audited)
    if pairs:
        label, predicted, tracks = pairs[0]
        text += f", most often {label} that is predicted as {predicted} ({tracks:,} times)"
    return f"{text}. {AUDIT_FILE} lists every track, the worst label first."


def _describe_checks(checks: Sequence[Row], share: float) -> Iterator[str]:
    if checks:
        recalls = [row["recall"] for row in checks]
        several = f" ({percent(min(recalls))} to {percent(max(recalls))} in {len(recalls)} checks)"
        span = several if len(recalls) > 1 else ""
        yield (
            f"Of labels swapped on purpose, {percent(share)} of all, {percent(float(np.mean(recalls)))} are in the "
            f"first {percent(FIRST_SHARE)} of the list{span}; a random order would have {percent(FIRST_SHARE)}."
        )


def _warnings(context: StudyContext, catalogue: pa.Table, checks: Sequence[Row]) -> Iterator[str]:
    _, _, left_out = audited_tracks(context)
    if left_out:
        yield (
            f"Not audited, since all its tracks share an artist, and models are fitted without it: "
            f"{join_names(left_out)}."
        )
    unknown = catalogue["artist"].null_count
    if unknown:
        yield (
            f"The artist of {unknown:,} tracks is unknown. Models may know other tracks of these artists, and "
            "agree with labels that are wrong for all of them."
        )
    if checks and np.mean([row["recall"] for row in checks]) < 0.5:
        yield (
            "Less than half of the swapped labels are early in the list: the models know these genres badly, and "
            "many of their conflicts are their own errors."
        )
    yield "A conflict is a reason to check a label, not a proof: the model may be wrong, or the genres overlap."


def _figures(context: StudyContext, checks: Sequence[Row]) -> Iterator[StudyFigure]:
    if checks:
        tables = {f"seed {row['swap_seed']}": context.read_run_table(row["run"]) for row in checks}
        ranked = {name: table["swapped"].to_numpy()[assess(table).ranked()] for name, table in tables.items()}
        yield StudyFigure(
            "swapped-labels",
            f"Swapped labels found by how much of the list is read, a line a check. The upright line is at "
            f"{percent(FIRST_SHARE)}; dotted, a random order.",
            partial(draw_recall, ranked, FIRST_SHARE),
        )


def _conflict_table(audited: Sequence[AuditedTrack]) -> StudyTable:
    shown = [track for track in audited if track.conflict][:MAX_PAGE_CONFLICTS]
    rows = [
        (
            track.rank, track.artist, track.title, track.given, track.suggested, track.given_probability,
            track.suggested_probability, track.quality, track.confident, track.track_id,
        )
        for track in shown
    ]  # fmt: skip
    return StudyTable(f"The {len(shown)} strongest conflicts", CONFLICT_COLUMNS, rows)


def _pair_table(audited: Sequence[AuditedTrack]) -> StudyTable:
    return StudyTable(
        "Confident conflicts by label and suggestion", ("label", "suggested", "tracks"), count_pairs(audited)
    )


STUDY = Study(
    name="audit",
    question="Which labels are wrong?",
    plan=plan,
    conclude=conclude,
    defaults={"seeds": (0, 1, 2), "split_seeds": (0, 1, 2)},
    quick={"seeds": (0,), "split_seeds": (0,)},
)
