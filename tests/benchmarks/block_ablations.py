"""What each block adds to the feature machine: all, all but one, and each alone.

python -m tests.benchmarks.block_ablations --store STORE [--results FOLDER] [--seeds 200 201 202 203 204]
    [--musicnn WHEEL]

The folds, the results folder and the intervals are those of `genre_models`.
"""

import argparse
import os
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.cross_validate import assign_folds
from tests.benchmarks.genre_models import (
    INNER_FOLDS,
    Material,
    interval_by_artist,
    load_material,
    make_parser,
    make_settings,
)
from training.feature_machine.fitting import assemble_features, assign_folds_or_fewer
from training.feature_machine.kernel_machine import fit_machine
from training.feature_machine.track_features import read_block_sizes

PATCHES = "patches"


def main() -> None:
    """Print a line for each selection of blocks."""
    parser = make_parser(__doc__)
    parser.set_defaults(network=False, processes=1)
    arguments = parser.parse_args()
    os.makedirs(arguments.results, exist_ok=True)
    material = load_material(arguments)
    blocks = [*read_block_sizes(material.blocks), PATCHES]
    all_ST = evaluate(material, arguments, blocks)
    show("all", all_ST, all_ST, material)
    for block in blocks:
        show(
            f"without {block}",
            evaluate(material, arguments, [it for it in blocks if it != block]),
            all_ST,
            material,
        )
    for block in blocks:
        show(f"{block} alone", evaluate(material, arguments, [block]), all_ST, material)


def evaluate(material: Material, arguments: argparse.Namespace, blocks: Sequence[str]) -> NDArray[np.float64]:
    """Return 1 where a track is predicted right by a machine on some blocks, for each fold seed. Shapes: (S, T)."""
    ids = material.labelled["track_id"].to_pylist()
    features_TD = assemble_features(material.blocks, material.patches, ids)
    sizes = read_block_sizes(material.blocks) | {PATCHES: material.dictionary.features}
    is_kept_D = np.repeat([name in blocks for name in sizes], list(sizes.values()))
    kept_TD, kept_sizes = features_TD[:, is_kept_D], {name: sizes[name] for name in sizes if name in blocks}
    right_ST = np.zeros((len(arguments.seeds), len(ids)))
    for row, seed in enumerate(arguments.seeds):
        for fold in assign_folds(material.genres, material.labelled, make_settings(arguments, seed)):
            is_test_T = pc.equal(fold["split"], "test").to_numpy()
            rows, target_TG = material.rows_of(fold), np.array(fold["target"].to_pylist(), np.float64)
            used, out = rows[~is_test_T], rows[is_test_T]
            inner_T, _ = assign_folds_or_fewer(material.labelled.take(used), INNER_FOLDS, 0)
            machine, _ = fit_machine(
                kept_TD[used],
                target_TG[~is_test_T],
                material.artist_T[used],
                inner_T,
                kept_sizes,
                "top",
                seed=0,
            )
            probability_TG = machine.predict(kept_TD[out], "top")
            right_ST[row, out] = probability_TG.argmax(axis=1) == target_TG[is_test_T].argmax(axis=1)
    return right_ST


def show(name: str, right_ST: NDArray[np.float64], all_ST: NDArray[np.float64], material: Material) -> None:
    """Print accuracy, its standard deviation over fold seeds, and the gain over all blocks with its interval."""
    by_seed_S = right_ST.mean(axis=1)
    mean, low, high = interval_by_artist((right_ST - all_ST).mean(axis=0), material.artist_T)
    print(
        f"{name:22} accuracy {by_seed_S.mean():.3f} ± {by_seed_S.std(ddof=len(by_seed_S) > 1):.3f}, "
        f"minus all {mean:+.3f} ({low:+.3f} to {high:+.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
