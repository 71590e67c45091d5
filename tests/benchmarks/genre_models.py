"""The feature machine against the SVM baseline on the same folds, paired by artist.

python -m tests.benchmarks.genre_models --store STORE [--seeds 200 201 202 203 204]

The dictionary of patches and the standardisation, which see no label, are those of all tracks; `cross-validate`
fits them for each fold.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.catalogue.splits import assign_artist_folds, group_tracks
from store.reader import open_snapshot
from training.feature_machine.fitting import fit_feature_machine, fit_patch_dictionary
from training.feature_machine.track_features import compute_stored_blocks, compute_stored_patch_blocks
from training.selection.cross_validation import select_cross_validation_tracks
from training.selection.svm_baseline import compute_stored_features, svm_predict

FOLDS, RESAMPLES = 5, 5_000


def main() -> None:
    """Print a line a fold seed and model, and the gain with its interval."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202, 203, 204])
    arguments = parser.parse_args()
    genres, labelled = select_cross_validation_tracks(open_snapshot(arguments.store).tracks, "top", ())
    ids = labelled["track_id"].to_pylist()
    target_TG = np.array(
        [[genre == own for genre in genres] for own in labelled["genre_top"].to_pylist()], int
    )
    blocks = compute_stored_blocks(ids, snapshot_url=arguments.store)
    dictionary = fit_patch_dictionary(blocks, ids, seed=0)
    _, patch_TD = compute_stored_patch_blocks(ids, snapshot_url=arguments.store, dictionary=dictionary)
    patches = dict(zip(ids, patch_TD, strict=True))
    baseline_TD = np.array(compute_stored_features(ids, snapshot_url=arguments.store)["features"].to_pylist())
    tracks = pa.table({"track_id": ids, "target": target_TG.tolist()})
    gains = []
    for seed in arguments.seeds:
        fold_T = assign_artist_folds(labelled, FOLDS, seed)
        fitted = fit_feature_machine(blocks, patches, dictionary, tracks, fold_T, "top", seed=0)
        is_right = {
            "features": which_are_right(fitted.across_folds_TG, target_TG),
            "svm": which_are_right(predict_folds(baseline_TD, target_TG, fold_T), target_TG),
        }
        for name, right_T in is_right.items():
            folds = [right_T[fold_T == fold].mean() for fold in range(FOLDS)]
            print(f"seed {seed}  {name:8} accuracy {right_T.mean():.3f} ± {np.std(folds, ddof=1):.3f}")
        gains.append(is_right["features"].astype(float) - is_right["svm"])
    mean, low, high = interval_by_artist(np.mean(gains, axis=0), group_tracks(labelled))
    print(f"features minus svm {mean:+.3f}, 95 % interval by artist {low:+.3f} to {high:+.3f}")


def predict_folds(
    feature_TD: NDArray[np.float32], target_TG: NDArray[np.int64], fold_T: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Predict the tracks of each fold by an SVM that was fitted on the others."""
    probability_TG = np.zeros(target_TG.shape)
    for fold in range(FOLDS):
        out = fold_T == fold
        probability_TG[out] = svm_predict(feature_TD[~out], target_TG[~out], feature_TD[out])
    return probability_TG


def which_are_right(probability_TG: NDArray[np.float64], target_TG: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which tracks are predicted correctly."""
    return np.asarray(probability_TG.argmax(axis=1) == target_TG.argmax(axis=1))


def interval_by_artist(gain_T: NDArray[np.float64], artist_T: NDArray[np.int64]) -> Sequence[float]:
    """Return the mean, and the 95 % interval of the bootstrap over artists."""
    _, index_T = np.unique(artist_T, return_inverse=True)
    sums_A, counts_A = np.bincount(index_T, weights=gain_T), np.bincount(index_T)
    drawn_RA = np.random.default_rng(0).integers(0, len(sums_A), (RESAMPLES, len(sums_A)))
    means_R = sums_A[drawn_RA].sum(axis=1) / counts_A[drawn_RA].sum(axis=1)
    return float(gain_T.mean()), *np.percentile(means_R, [2.5, 97.5]).tolist()


if __name__ == "__main__":
    main()
