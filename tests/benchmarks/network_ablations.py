"""What each choice in the training of the network does to its accuracy on artists not in training, alone and together.

python -m tests.benchmarks.network_ablations --store STORE [--results FOLDER] [--seed 100] [--folds 1 2 3 4 5]
    [--variants mixup artist-balance ...] [--processes 1]

Each variant is trained on the same artist-disjoint folds as the default network, with the same seed, and compared with
it track by track. Rerun it to resume it: trainings are kept in FOLDER.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.cluster.client import Cluster, open_cluster
from flows.cross_validate import assign_folds, evaluate_fold, plan_trials
from flows.settings import CrossValidationSettings
from preprocessing.catalogue.splits import group_tracks
from store.reader import open_snapshot
from tests.benchmarks.genre_models import FOLDS, FORCED_CHOICE, forced_choice, interval_by_artist
from training.evaluation.held_out_predictions import to_matrix
from training.selection.cross_validation import select_cross_validation_tracks

NETWORK = {"name": "short-chunk-resnet"}
DEFAULT = "default"
VARIANTS: Mapping[str, dict[str, Any]] = {
    DEFAULT: {},
    "another-seed": {"seed": 1},  # what a variant has to exceed
    "mixup": {"augment": {"mixup": 0.4}},
    "artist-balance": {"balance": "artist"},
    "mixup-and-balance": {"augment": {"mixup": 0.4}, "balance": "artist"},
    "no-smoothing": {"label_smoothing": 0.0},
    "half-width": {"model": {**NETWORK, "width": 8}},
    "three-blocks": {"model": {**NETWORK, "depth": 3}},
    "no-dropout": {"model": {**NETWORK, "dropout": 0.0}},
    "no-augmentation": {"augment": {"masks": 0, "gain_db": 0.0, "tone_db": 0.0}},
    "crops-of-8-s": {"crop_s": 8.0, "crops_per_track": 4},  # as many frames in an epoch
    "half-the-epochs": {"epochs": 8},
}


def main() -> None:
    """Print a line for each fold and variant, and the gain of each variant over the default."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--results", default="data/network_ablations")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--folds", type=int, nargs="+", default=[*range(1, FOLDS + 1)])
    parser.add_argument("--variants", nargs="+", choices=[it for it in VARIANTS if it != DEFAULT])
    parser.add_argument("--processes", type=int, default=0, help="Dask workers, and processes of a training")
    arguments = parser.parse_args()
    wanted = [it for it in VARIANTS if it == DEFAULT or it in (arguments.variants or VARIANTS)]
    settings_of = {name: make_settings(arguments, VARIANTS[name]) for name in wanted}
    artist_T = group_tracks(
        select_cross_validation_tracks(open_snapshot(arguments.store).tracks, "top", ())[1]
    )
    rights: dict[str, NDArray[np.float64]] = {}
    with open_cluster(settings_of[DEFAULT].cluster) as cluster:
        for name, settings in settings_of.items():
            rights[name] = evaluate(cluster, name, settings, arguments.folds)
            gain_T = rights[name] - rights[DEFAULT]
            is_known_T = ~np.isnan(gain_T)
            mean, low, high = interval_by_artist(gain_T[is_known_T], artist_T[is_known_T])
            print(f"{name:18} gain {mean:+.3f} ({low:+.3f} to {high:+.3f})", flush=True)


def make_settings(arguments: argparse.Namespace, training: Mapping[str, Any]) -> CrossValidationSettings:
    """Return the settings of the cross-validation of a variant; its seed, if it names one, is that of a trial."""
    return CrossValidationSettings.model_validate(
        {
            "store": arguments.store,
            "results": arguments.results,
            "folds": FOLDS,
            "fold_seed": arguments.seed,
            "seeds": [training.get("seed", 0)],
            "training": {"model": NETWORK, **training},
            "hosts": {"processes_per_host": arguments.processes},
            "cluster": {"workers": arguments.processes},
        }
    )


def evaluate(
    cluster: Cluster, name: str, settings: CrossValidationSettings, folds: list[int]
) -> NDArray[np.float64]:
    """Train a variant on some folds and print its accuracy; return 1 for each track that is right, NaN for no test."""
    snapshot = open_snapshot(settings.store)
    genres, labelled = select_cross_validation_tracks(snapshot.tracks, "top", ())
    trials = plan_trials(assign_folds(genres, labelled, settings), settings)
    tables = [
        evaluate_fold(cluster, trial, genres, snapshot, settings)
        for trial in trials
        if trial.fold + 1 in folds
    ]
    tested = pa.concat_tables(tables)
    truth_TG, probability_TG = (to_matrix(tested, column) for column in ("truth", "probabilities"))
    is_right_T = probability_TG.argmax(axis=1) == truth_TG.argmax(axis=1)
    accuracies = [is_right_T[tested["fold"].to_numpy() == fold - 1].mean() for fold in folds]
    pair = forced_choice(truth_TG, probability_TG, genres)
    print(
        f"{name:18} accuracy {is_right_T.mean():.3f} ± {np.std(accuracies, ddof=len(folds) > 1):.3f}, "
        f"{' or '.join(FORCED_CHOICE)} {pair:.3f}, {sum(table['train_s'][0].as_py() for table in tables):.0f} s",
        flush=True,
    )
    row_of = {track_id: row for row, track_id in enumerate(labelled["track_id"].to_pylist())}
    right_T = np.full(len(labelled), np.nan)
    right_T[[row_of[track_id] for track_id in tested["track_id"].to_pylist()]] = is_right_T
    return right_T


if __name__ == "__main__":
    main()
