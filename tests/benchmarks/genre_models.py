"""What `train` chooses between, beside what a user would pick instead, on the same folds, paired by artist.

python -m tests.benchmarks.genre_models --store STORE [--results FOLDER] [--seeds 200 201 202 203 204] [--no-network]
    [--folds 1 2] [--training-tracks 55 110 173 256] [--musicnn WHEEL]

For each fold seed: the feature machine, the network, their average by halves, an SVM on the product's own statistics
(svm) and one on FMA's 518 features (svm518), which are computed from the audio. Rerun it to resume it: features and
networks are kept in FOLDER. Forced choice: the genre of two that is more probable, of tracks that are one of them.

The dictionary of patches, which sees no label, is that of all tracks; `cross-validate` fits one for each fold.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.cluster.client import open_cluster
from flows.cross_validate import assign_folds, average_predictions, evaluate_fold, plan_trials
from flows.model_stages.features import load_musicnn
from flows.settings import CrossValidationSettings
from preprocessing.catalogue.splits import group_tracks
from preprocessing.features.patches import PatchDictionary
from store.reader import Snapshot, open_snapshot
from tests.benchmarks.fma_features import load_fma_features
from training.evaluation.held_out_predictions import to_matrix
from training.feature_machine.fitting import (
    assemble_features,
    assign_folds_or_fewer,
    fit_feature_machine,
    fit_patch_dictionary,
)
from training.feature_machine.track_features import compute_stored_blocks, compute_stored_patch_blocks
from training.feature_machine.version_file import recipe_of
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings
from training.selection.cross_validation import fold_predictions, select_cross_validation_tracks
from training.selection.svm_baseline import compute_stored_features, svm_predict

FOLDS = 5
INNER_FOLDS = 5  # by which a feature machine is calibrated
RESAMPLES = 5_000
FORCED_CHOICE = ("Pop", "Rock")
SVM_518 = "svm518"


@dataclass(frozen=True)
class Material:
    """The labelled tracks of a store, and what the models compute of each."""

    snapshot: Snapshot
    genres: tuple[str, ...]
    labelled: pa.Table
    artist_T: NDArray[np.int64]
    blocks: pa.Table
    dictionary: PatchDictionary
    patches: Mapping[str, NDArray[np.float32]]
    statistics_TD: NDArray[np.float32]
    fma_TD: NDArray[np.float32]

    def rows_of(self, tracks: pa.Table) -> NDArray[np.int64]:
        """Return the row of each of some tracks."""
        ids = self.labelled["track_id"].combine_chunks()
        return np.asarray(pc.index_in(tracks["track_id"], value_set=ids), np.int64)


def main() -> None:
    """Print a table a number of training tracks, and the gains with their intervals."""
    parser = make_parser(__doc__)
    parser.add_argument("--network", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[*range(1, FOLDS + 1)])
    parser.add_argument("--training-tracks", type=int, nargs="+", default=[0], help="0 for all")
    parser.add_argument("--processes", type=int, default=0, help="Dask workers, and processes of a training")
    arguments = parser.parse_args()
    os.makedirs(arguments.results, exist_ok=True)
    material = load_material(arguments)
    for count in arguments.training_tracks:
        right_of: dict[str, list[NDArray[np.float64]]] = {}
        print(f"{f'about {count}' if count else 'all'} training tracks")
        for seed in arguments.seeds:
            settings = make_settings(arguments, seed)
            predictions = cross_validate_all(material, settings, arguments.folds, count)
            for model, right_T in print_scores(predictions, material, seed).items():
                right_of.setdefault(model, []).append(right_T)
        print_gains(right_of, material.artist_T)


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what every comparison on these folds has: the store, the results and the fold seeds."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--results", default="data/genre_models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202, 203, 204])
    parser.add_argument("--musicnn", default="", help="wheel of musicnn, whose embedding is one more block")
    return parser


def make_settings(arguments: argparse.Namespace, seed: int) -> CrossValidationSettings:
    """Return the settings of the cross-validation with a fold seed."""
    model = ModelSettings(name="short-chunk-resnet" if arguments.network else "features")
    return CrossValidationSettings.model_validate(
        {
            "store": arguments.store,
            "results": arguments.results,
            "folds": FOLDS,
            "fold_seed": seed,
            "training": TrainSettings(model=model),
            "hosts": {"processes_per_host": arguments.processes},
            "cluster": {"workers": arguments.processes},
        }
    )


def load_material(arguments: argparse.Namespace) -> Material:
    """Compute the features of all labelled tracks in this process, or read them from the folder of results."""
    store, results = arguments.store, Path(arguments.results)
    snapshot = open_snapshot(store)
    musicnn = load_musicnn(ModelSettings(name="features", musicnn=arguments.musicnn), snapshot)
    genres, labelled = select_cross_validation_tracks(snapshot.tracks, "top", ())
    ids, cache = labelled["track_id"].to_pylist(), results / f"blocks-{recipe_of(musicnn)}.parquet"
    if not cache.exists():
        pq.write_table(compute_stored_blocks(ids, snapshot_url=store, musicnn=musicnn), cache)
    blocks = pq.read_table(cache)
    dictionary = fit_patch_dictionary(blocks, ids, seed=0)
    _, patch_TD = compute_stored_patch_blocks(ids, snapshot_url=store, dictionary=dictionary)
    return Material(
        snapshot=snapshot,
        genres=genres,
        labelled=labelled,
        artist_T=group_tracks(labelled),
        blocks=blocks,
        dictionary=dictionary,
        patches=dict(zip(ids, patch_TD, strict=True)),
        statistics_TD=np.array(compute_stored_features(ids, snapshot_url=store)["features"].to_pylist()),
        fma_TD=load_fma_features(labelled["url"].to_pylist(), results / "fma_features.npz"),
    )


def cross_validate_all(
    material: Material, settings: CrossValidationSettings, wanted_folds: Sequence[int], training_tracks: int
) -> pa.Table:
    """Return the predictions of all models for the test tracks of some folds, FOLD_PREDICTIONS_SCHEMA."""
    folds = assign_folds(material.genres, material.labelled, settings)
    if training_tracks:
        folds = [limit_training(fold, material, training_tracks, settings.fold_seed) for fold in folds]
    tables = []
    with open_cluster(settings.cluster) as cluster:
        for trial in plan_trials(folds, settings):
            if trial.fold + 1 not in wanted_folds:
                continue
            features = predict_by_features(trial.tracks, trial.fold, material)
            tables += [features, *predict_by_svms(trial.tracks, trial.fold, material)]
            if settings.training.model.name != "features":
                network = evaluate_fold(cluster, trial, material.genres, material.snapshot, settings)
                tables += [network, average_predictions(network, features, "top")]
    return pa.concat_tables(tables)


def limit_training(fold: pa.Table, material: Material, count: int, seed: int) -> pa.Table:
    """Return a fold with so many training and validation tracks, or few more: whole artists, drawn for each genre.

    A genre keeps a validation track at least, so that the network has an epoch to choose.
    """
    artist_T = material.artist_T[material.rows_of(fold)]
    genre_T = np.array(fold["target"].to_pylist()).argmax(axis=1)
    split_T = np.array(fold["split"].to_pylist())
    is_kept_T = split_T == "test"
    random = np.random.default_rng(seed)
    for genre in range(len(material.genres)):
        for split in ("training", "validation"):
            is_own_T = (genre_T == genre) & (split_T == split)
            share = is_own_T.sum() / (split_T != "test").sum() * count
            for artist in random.permutation(np.unique(artist_T[is_own_T])):
                if (is_kept_T & is_own_T).sum() < share:
                    is_kept_T |= is_own_T & (artist_T == artist)
    return fold.filter(pa.array(is_kept_T))


def predict_by_features(fold: pa.Table, number: int, material: Material) -> pa.Table:
    """Predict the test tracks of a fold by a feature machine, fitted and calibrated on the others."""
    used = fold.filter(pc.not_equal(fold["split"], "test"))
    rows = material.rows_of(used)
    inner_T, _ = assign_folds_or_fewer(material.labelled.take(pa.array(rows)), INNER_FOLDS, 0)
    fitted = fit_feature_machine(
        material.blocks,
        material.patches,
        material.dictionary,
        used,
        material.artist_T[rows],
        inner_T,
        "top",
        seed=0,
    )
    test = fold.filter(pc.equal(fold["split"], "test"))
    feature_TD = assemble_features(material.blocks, material.patches, test["track_id"].to_pylist())
    return to_predictions(test, fitted.features.predict(feature_TD, "top"), "features", number)


def predict_by_svms(fold: pa.Table, number: int, material: Material) -> list[pa.Table]:
    """Predict the test tracks of a fold by an SVM on the product's statistics, and by one on FMA's features."""
    is_test_T = pc.equal(fold["split"], "test").to_numpy()
    rows, target_TG = material.rows_of(fold), np.array(fold["target"].to_pylist())
    used, out = rows[~is_test_T], rows[is_test_T]
    return [
        to_predictions(
            fold.filter(pa.array(is_test_T)),
            svm_predict(feature_TD[used], target_TG[~is_test_T], feature_TD[out]),
            model,
            number,
        )
        for model, feature_TD in (("svm", material.statistics_TD), (SVM_518, material.fma_TD))
    ]


def to_predictions(test: pa.Table, probability_TG: NDArray[np.float64], model: str, fold: int) -> pa.Table:
    """Return the predictions for the test tracks of a fold as FOLD_PREDICTIONS_SCHEMA."""
    rows = test.select(["track_id", "target"]).rename_columns(["track_id", "truth"])
    return fold_predictions(
        rows.append_column("probabilities", pa.array(probability_TG.tolist())), model=model, seed=0, fold=fold
    )


def print_scores(predictions: pa.Table, material: Material, seed: int) -> dict[str, NDArray[np.float64]]:
    """Print a line a model; return for each labelled track 1 where the prediction is right, NaN where there is none."""
    right_of = {}
    for model in dict.fromkeys(predictions["model"].to_pylist()):
        rows = predictions.filter(pc.equal(predictions["model"], model))
        truth_TG, probability_TG = (to_matrix(rows, name) for name in ("truth", "probabilities"))
        is_right_T = probability_TG.argmax(axis=1) == truth_TG.argmax(axis=1)
        fold_T = rows["fold"].to_numpy()
        folds = [is_right_T[fold_T == fold].mean() for fold in np.unique(fold_T)]
        right_of[model] = np.full(len(material.labelled), np.nan)
        right_of[model][material.rows_of(rows)] = is_right_T
        print(
            f"seed {seed}  {model:8} accuracy {is_right_T.mean():.3f} ± {np.std(folds, ddof=len(folds) > 1):.3f}  "
            f"{' or '.join(FORCED_CHOICE)} {forced_choice(truth_TG, probability_TG, material.genres):.3f}",
            flush=True,
        )
    return right_of


def forced_choice(
    truth_TG: NDArray[np.float64], probability_TG: NDArray[np.float64], genres: Sequence[str]
) -> float:
    """Return the accuracy on the tracks of two genres if there were no others; NaN if the store lacks one."""
    if not set(FORCED_CHOICE) <= set(genres):
        return float("nan")
    pair = [genres.index(genre) for genre in FORCED_CHOICE]
    is_of_pair_T = truth_TG[:, pair].any(axis=1)
    right_T = probability_TG[:, pair].argmax(axis=1) == truth_TG[:, pair].argmax(axis=1)
    return float(right_T[is_of_pair_T].mean())


def print_gains(right_of: dict[str, list[NDArray[np.float64]]], artist_T: NDArray[np.int64]) -> None:
    """Print the mean of each model over fold seeds, and how much better the feature machine and the average are."""
    is_known_T = ~np.isnan(next(iter(right_of.values()))).all(axis=0)
    mean_of = {
        model: np.nanmean(np.array(rights)[:, is_known_T], axis=0) for model, rights in right_of.items()
    }
    artist_T = artist_T[is_known_T]
    for model, mean_T in mean_of.items():
        by_artist = np.mean([mean_T[artist_T == artist].mean() for artist in np.unique(artist_T)])
        print(f"mean      {model:8} accuracy {mean_T.mean():.3f}, mean over artists {by_artist:.3f}")
    for ours in ("features", "average"):
        for other in ("svm", SVM_518, "network", "features"):
            if ours != other and ours in mean_of and other in mean_of:
                mean, low, high = interval_by_artist(mean_of[ours] - mean_of[other], artist_T)
                print(f"{ours} minus {other} {mean:+.3f}, 95 % interval by artist {low:+.3f} to {high:+.3f}")


def interval_by_artist(gain_T: NDArray[np.float64], artist_T: NDArray[np.int64]) -> Sequence[float]:
    """Return the mean, and the 95 % interval of the bootstrap over artists."""
    _, index_T = np.unique(artist_T, return_inverse=True)
    sums_A, counts_A = np.bincount(index_T, weights=gain_T), np.bincount(index_T)
    drawn_RA = np.random.default_rng(0).integers(0, len(sums_A), (RESAMPLES, len(sums_A)))
    means_R = sums_A[drawn_RA].sum(axis=1) / counts_A[drawn_RA].sum(axis=1)
    return float(gain_T.mean()), *np.percentile(means_R, [2.5, 97.5]).tolist()


if __name__ == "__main__":
    main()
