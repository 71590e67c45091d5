"""The runs of a study that train models: each a model, a split and a seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa

from flows.model_stages.baseline import store_baseline_features
from flows.model_stages.features import store_blocks
from flows.model_stages.librosa_features import store_librosa_features
from flows.study_runs.candidates import FEATURES, Candidate, needs_features
from flows.study_runs.study import RunResult, StudyContext, StudyRun, run_name
from store.errors import BadInput
from store.fs.files import absolute, join
from training.fit.labels import select_labelled_tracks
from training.studies.genre_sets import (
    check_genres,
    count_tracks,
    draw_tracks,
    label_by_sub_genre,
    select_tracks,
)
from training.studies.settings import SplitKind
from training.studies.splits import count_artists, share_of_known_artists, split_study
from training.studies.trial import LIBROSA_SUFFIX, Trial, run_trial

MIN_TRACKS = 4  # of a genre that is used though nobody named it


@dataclass(frozen=True, eq=False)
class Split:
    """One assignment of tracks to training, validation and test, or to folds of them."""

    tracks: pa.Table
    genres: tuple[str, ...]
    kind: SplitKind
    folds: int
    validation_share: float
    seed: int | None

    @property
    def fold_numbers(self) -> range:
        """The folds; official splits are one."""
        return range(1 if self.kind == "official" else self.folds)


@lru_cache(maxsize=2)
def assign_split(split: Split) -> list[tuple[pa.Table, float]]:
    """Return of each fold the tracks as LABELLED_SCHEMA, and the share of test tracks with a known artist.

    Raises: BadInput if a genre has too few artists.
    """
    folds = split_study(
        split.tracks,
        split.kind,
        folds=split.folds,
        validation_share=split.validation_share,
        seed=split.seed or 0,
    )
    return [
        (select_labelled_tracks(tracks, "top", split.genres), share_of_known_artists(tracks))
        for tracks in folds
    ]


def study_tracks(context: StudyContext) -> pa.Table:
    """Return the tracks with a spectrogram and a genre; with `--within`, labelled by sub-genre."""
    tracks = context.snapshot.tracks
    if context.settings.within:
        tracks = label_by_sub_genre(tracks, context.settings.within, context.snapshot.genre_parents)
    chosen = select_tracks(tracks)
    most = context.settings.tracks_per_genre
    return draw_tracks(chosen, most) if most else chosen


def study_genres(
    context: StudyContext, tracks: pa.Table, kinds: Sequence[SplitKind]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the genres of a study, those with most tracks first, and a note on each that is left out.

    Raises: BadInput if one that was asked for is unknown or has too few artists, or fewer than two are left.

    Of genres that nobody named, those with too few tracks or artists are left out.
    """
    settings, counts = context.settings, count_tracks(tracks)
    check_genres(settings.genres, list(counts))
    wanted = [genre for genre in counts if not settings.genres or genre in settings.genres]
    artists, notes, kept = count_artists(tracks, wanted), [], []
    needed = settings.folds if "artist" in kinds else 1
    for genre in wanted:
        found = f"{artists[genre]} artist{'s' * (artists[genre] != 1)}"
        few_artists = f"{found}, fewer than the {needed} folds that share none"
        if artists[genre] < needed and settings.genres:
            raise BadInput(
                f"genre {genre!r} has {few_artists}; lower --folds, leave it out, or use --splits random"
            )
        if artists[genre] < needed:
            notes.append(f"{genre} was left out: it has {few_artists}.")
        elif counts[genre] < MIN_TRACKS and not settings.genres:
            notes.append(f"{genre} was left out: it has {counts[genre]} tracks.")
        else:
            kept.append(genre)
    if len(kept) < 2:
        raise BadInput(
            f"a study needs two genres, and has {', '.join(kept) or 'none'}. {' '.join(notes)} Build a store with more "
            "artists, lower --folds, or use --splits random"
        )
    return tuple(kept), notes


def make_splits(
    context: StudyContext, tracks: pa.Table, genres: Sequence[str], kinds: Sequence[SplitKind]
) -> Iterator[Split]:
    """Yield the splits of some genres: each kind once for each seed. Raises: BadInput if one cannot be made."""
    settings = context.settings
    own = select_tracks(tracks, genres)
    for kind in kinds:
        for seed in (None,) if kind == "official" else settings.split_seeds:
            split = Split(own, tuple(genres), kind, settings.folds, settings.validation_share, seed)
            assign_split(split)
            yield split


def plan_trials(
    context: StudyContext, split: Split, columns: Mapping[str, Any], candidates: Sequence[Candidate]
) -> Iterator[StudyRun]:
    """Yield a run for each model, fold and seed of a split. `columns` of their rows come first.

    Features that a model needs of all tracks are computed before, unless they are there.
    """
    for candidate in candidates:
        features_url = store_features(context, candidate.model)
        for seed in context.settings.seeds if candidate.has_seed else (None,):
            for fold in split.fold_numbers:
                about = {
                    **columns,
                    "model": candidate.label,
                    "split": split.kind,
                    "split_seed": split.seed,
                    "fold": fold,
                    "seed": seed,
                }
                yield trial_run(context, split, about, candidate, features_url)


def trial_run(
    context: StudyContext, split: Split, about: Mapping[str, Any], candidate: Candidate, features_url: str
) -> StudyRun:
    """Return the run of one trial; `about` has at least its fold and seed."""
    settings = {"genres": "; ".join(split.genres), **about}
    seeded = candidate.training.model_copy(update={"seed": about["seed"] or 0})
    trial = partial(
        Trial,
        model=candidate.model,
        genres=split.genres,
        snapshot_url=absolute(context.snapshot.url),
        training=seeded,
        folder=join(context.run_folder(run_name(settings)), "training"),
        features_url=features_url,
        balancing=candidate.balancing,
    )
    prepare = partial(prepare_trial, trial, split, int(about["fold"]))
    return StudyRun(settings, body=run_study_trial, prepare=prepare)


def prepare_trial(trial: Callable[..., Trial], split: Split, fold: int) -> dict[str, Any]:
    """Return the arguments of `run_study_trial`."""
    tracks, known_artists = assign_split(split)[fold]
    return {"trial": trial(tracks=tracks), "known_artists": known_artists}


@lru_cache(maxsize=16)
def store_features(context: StudyContext, model: str) -> str:
    """Compute the features that a model needs of all tracks, unless they are there; return their URL, or ""."""
    if not needs_features(model):
        return ""
    tracks = study_tracks(context)
    track_ids = tracks["track_id"].to_pylist()
    shared = (context.snapshot, context.root)
    if model.endswith(LIBROSA_SUFFIX):
        return store_librosa_features(context.cluster, tracks, *shared)
    if model == FEATURES:
        return store_blocks(context.cluster, track_ids, *shared, context.musicnn)
    return store_baseline_features(context.cluster, track_ids, *shared)


def run_study_trial(trial: Trial, known_artists: float) -> RunResult:
    """Train, predict and score: the body of a run. Its table is the predictions of the test tracks."""
    result = run_trial(trial)
    scores = result.scores
    metrics = {
        "training_tracks": len(trial.tracks) - scores.tracks,
        "test_tracks": scores.tracks,
        "accuracy": scores.accuracy,
        "macro_f1": scores.macro_f1,
        "log_loss": scores.log_loss,
        "chance": 1 / len(trial.genres),
        "majority": scores.chance,
        "known_artists": known_artists,
        "best_epoch": result.best_epoch,
        "train_s": result.train_s,
    }
    return RunResult(metrics, table=result.predictions)


def pool(context: StudyContext, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the predictions of some runs together."""
    return pa.concat_tables([context.read_run_table(row["run"]) for row in rows])
