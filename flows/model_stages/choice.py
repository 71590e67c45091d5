"""The choice of a model by artist-disjoint cross-validation within the training and validation tracks.

No test track takes part: what is chosen here is reported on tracks that chose nothing.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flows.cluster.client import Cluster
from flows.model_stages.baseline import UNUSED, predict_by_baseline
from flows.model_stages.features import fit_on_tracks, load_blocks, load_musicnn
from flows.model_stages.training import create_run_folder, plan_run, train_and_predict
from flows.reporting.progress import print_status
from flows.reporting.stage import run_logger
from flows.settings import TrainModelSettings
from preprocessing.catalogue.splits import group_tracks
from store.errors import BadInput
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.reader import Snapshot
from training.evaluation.held_out_predictions import to_matrix
from training.feature_machine.fitting import assign_folds_or_fewer, join_catalogue
from training.fit.labels import select_labelled_tracks
from training.fit.run import run_hash
from training.fit.settings import TrainSettings
from training.inference.members import combine_members
from training.networks.settings import ModelSettings, PretrainedSettings, is_state_dict_file
from training.selection.cross_validation import split_fold
from training.selection.model_choice import ModelChoice, choose, fit_network_share, only_candidate

FOLDS = 3
VALIDATION_SHARE = 0.1  # of a fold's training tracks, by which its network's epoch is chosen
# Networks cost minutes: they are tried on fewer folds, and for fewer epochs, after which validation hardly improves.
NETWORK_FOLDS, MANY_TRACKS = 2, 1_000  # from so many tracks on, those of one fold are enough to compare
EPOCH_SHARE = 0.4
NETWORK_NAME = "short-chunk-resnet"


@dataclass(frozen=True)
class _Contest:
    """What the candidates are compared on."""

    cluster: Cluster
    snapshot: Snapshot
    genres: tuple[str, ...]
    all_tracks: pa.Table  # (track_id, split, target)
    tracks: pa.Table  # the test tracks left out
    catalogue: pa.Table  # the same tracks, with artist, album and genres
    fold_T: NDArray[np.int64]
    settings: TrainModelSettings

    @property
    def truth(self) -> NDArray[np.float64]:
        """Shapes: (T, G) of 0 and 1."""
        return np.array(self.tracks["target"].to_pylist(), np.float64)


def choose_model(
    cluster: Cluster,
    snapshot: Snapshot,
    genres: tuple[str, ...],
    tracks: pa.Table,
    settings: TrainModelSettings,
) -> ModelChoice:
    """Choose between the feature machine, the network and their average, unless that is done."""
    run = plan_run(snapshot, genres, tracks, settings.training)
    url = join(absolute(settings.models), "choices", f"{run_hash(run, tracks)}.json")
    if exists(url):
        return ModelChoice.model_validate_json(read_bytes(url))
    used = tracks.filter(pc.not_equal(tracks["split"], "test"))
    catalogue = join_catalogue(used, snapshot.tracks)
    fold_T, folds = assign_folds_or_fewer(catalogue, FOLDS, settings.training.seed)
    if folds < FOLDS:
        print_status(f"the genre with fewest artists allows {folds} folds to choose a model by, not {FOLDS}")
    contest = _Contest(cluster, snapshot, genres, tracks, used, catalogue, fold_T, settings)
    choice = _compare(contest, folds) if folds > 1 else _too_few_artists()
    write_atomic(url, choice.model_dump_json(indent=1).encode())
    print_status(f"chosen: {choice.name}; {choice.reason}")
    return choice


def choice_share(training: TrainSettings) -> float:
    """Return what the choice between many tracks' models costs, as a share of the network's training.

    The features, which take minutes where a network takes hours, do not count.
    """
    return EPOCH_SHARE * (FOLDS - 1) / FOLDS if training.model.name == "auto" else 0.0


def apply_choice(training: TrainSettings, choice: ModelChoice) -> TrainSettings:
    """Return the settings of a training of the chosen model."""
    model = training.model.model_copy(update={"name": choice.name, "network_share": choice.network_share})
    if choice.name == "features":
        return training.model_copy(update={"model": model, "pretrained": PretrainedSettings()})
    return training.model_copy(update={"model": model})


def _too_few_artists() -> ModelChoice:
    return only_candidate(
        "features", "a genre has a single artist, so no model can be tried on other artists"
    )


def _compare(contest: _Contest, folds: int) -> ModelChoice:
    target, seed = contest.settings.training.target, contest.settings.training.seed
    features_TG = _predict_by_features(contest)
    network_TG, is_predicted_T = _predict_by_network(contest, folds)
    baseline_TG = _predict_by_baseline(contest)
    artist_T = group_tracks(contest.catalogue)
    if not is_predicted_T.any():
        is_predicted_T[:] = True
        candidates, share = {"features": features_TG}, 0.5
    else:
        rows = is_predicted_T
        share = fit_network_share(network_TG[rows], features_TG[rows], contest.truth[rows], target)
        average_TG = _cross_fitted_average(contest, network_TG, features_TG, is_predicted_T)
        candidates = {"features": features_TG, NETWORK_NAME: network_TG, "average": average_TG}
    run_logger().info("choice of a model: %d tracks, seed %d", int(is_predicted_T.sum()), seed)
    return choose(
        {name: each_TG[is_predicted_T] for name, each_TG in candidates.items()},
        None if baseline_TG is None else baseline_TG[is_predicted_T],
        contest.truth[is_predicted_T],
        artist_T[is_predicted_T],
        target,
        folds=folds,
        network_share=share,
    )


def _cross_fitted_average(
    contest: _Contest,
    network_TG: NDArray[np.float64],
    features_TG: NDArray[np.float64],
    is_predicted_T: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Average each fold by the share that fits the other folds best; a single fold by halves."""
    target, average_TG = contest.settings.training.target, np.zeros_like(network_TG)
    predicted_folds = np.unique(contest.fold_T[is_predicted_T])
    for fold in predicted_folds:
        rows = contest.fold_T == fold
        others = is_predicted_T & ~rows
        share = (
            fit_network_share(network_TG[others], features_TG[others], contest.truth[others], target)
            if others.any()
            else 0.5
        )
        average_TG[rows] = combine_members([network_TG[rows], features_TG[rows]], [share, 1 - share], target)
    return average_TG


def _predict_by_features(contest: _Contest) -> NDArray[np.float64]:
    """Predict each track by a feature machine that was fitted on the other folds."""
    track_ids = contest.all_tracks["track_id"].to_pylist()  # features are kept for the training that follows
    musicnn = load_musicnn(contest.settings.training.model, contest.snapshot)
    blocks = load_blocks(contest.cluster, track_ids, contest.snapshot, contest.settings.models, musicnn)
    run = plan_run(contest.snapshot, contest.genres, contest.tracks, contest.settings.training)
    artist_T = group_tracks(contest.catalogue)
    fitted = fit_on_tracks(
        contest.cluster, blocks, contest.tracks, artist_T, contest.fold_T, contest.snapshot, run, musicnn
    )
    return fitted.across_folds_TG


def _predict_by_baseline(contest: _Contest) -> NDArray[np.float64] | None:
    if contest.settings.training.target == "multi":
        return None
    rows = pc.index_in(contest.tracks["track_id"], value_set=contest.all_tracks["track_id"].combine_chunks())
    fold_T = np.full(len(contest.all_tracks), UNUSED)
    fold_T[rows.to_numpy()] = contest.fold_T
    probability_TG = predict_by_baseline(
        contest.cluster, contest.all_tracks, fold_T, contest.snapshot, contest.settings.models
    )
    return np.asarray(probability_TG[rows.to_numpy()])


def _predict_by_network(contest: _Contest, folds: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Predict the tracks of some folds by networks that were trained on the others; return also which tracks."""
    probability_TG = np.zeros((len(contest.tracks), len(contest.genres)))
    is_predicted_T = np.zeros(len(contest.tracks), bool)
    for fold in range(1 if len(contest.tracks) >= MANY_TRACKS else min(folds, NETWORK_FOLDS)):
        is_test_T = contest.fold_T == fold
        try:
            probability_TG[is_test_T] = _train_on_other_folds(contest, fold, is_test_T)
        except BadInput as why:
            print_status(f"fold {fold + 1}: no network is tried: {why}")
            continue
        is_predicted_T |= is_test_T
    return probability_TG, is_predicted_T


def _train_on_other_folds(contest: _Contest, fold: int, is_test_T: NDArray[np.bool_]) -> NDArray[np.float64]:
    settings, snapshot = contest.settings, contest.snapshot
    split = split_fold(contest.catalogue, is_test_T, VALIDATION_SHARE, settings.training.seed)
    tracks = select_labelled_tracks(split, settings.training.target, contest.genres)
    training = _network_settings(settings.training)
    folder, run = create_run_folder(snapshot, contest.genres, tracks, training, settings.models)
    held_out = train_and_predict(
        contest.cluster,
        folder,
        run,
        snapshot,
        tracks,
        hosts=settings.hosts,
        root=settings.models,
        title=f"Choosing a model: network, fold {fold + 1}",
    )
    track_ids = contest.tracks.filter(pa.array(is_test_T))["track_id"]
    rows = pc.index_in(track_ids, value_set=held_out["track_id"].combine_chunks())
    return to_matrix(held_out.take(rows), "probabilities")


def _network_settings(training: TrainSettings) -> TrainSettings:
    """Return the settings of a short training; not from a version, which was trained on tracks of these folds."""
    model = ModelSettings(**{**training.model.model_dump(), "name": NETWORK_NAME, "network_share": 0.5})
    weights = training.pretrained.weights
    pretrained = training.pretrained if is_state_dict_file(weights) else PretrainedSettings()
    epochs = max(1, round(EPOCH_SHARE * training.epochs), pretrained.frozen_epochs)
    return training.model_copy(update={"model": model, "pretrained": pretrained, "epochs": epochs})
