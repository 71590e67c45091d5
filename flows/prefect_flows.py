"""The Prefect flows: each runs the flow of the same name, whose stages become task runs.

The forms in the UI need the settings only; a flow is imported when it runs.
"""

from prefect import flow

from flows.reporting.observation import observed
from flows.settings import (
    BuildSettings,
    CrossValidationSettings,
    NightlySettings,
    PruneSettings,
    TagSettings,
    TrainModelSettings,
    UndoSettings,
)
from flows.study_runs.settings import ExperimentSettings


@flow(name="build-dataset")
def build_dataset(settings: BuildSettings) -> object:
    """Turn an audio catalogue into published spectrograms. Rerun it to resume it."""
    from flows import build_dataset as flow_module

    with observed("build_dataset"):
        return flow_module.build_dataset(settings)


@flow(name="train-model")
def train_model(settings: TrainModelSettings) -> object:
    """Train a network, evaluate it and publish it as a model version. Rerun it to resume it."""
    from flows import train_model as flow_module

    with observed("train_model"):
        return flow_module.train_model(settings)


@flow(name="tag-catalogue")
def tag_catalogue(settings: TagSettings) -> object:
    """Predict the genres of audio files and write them as tags: a dry run, unless writing is asked for."""
    from flows import tag_catalogue as flow_module

    with observed("tag_catalogue"):
        return flow_module.tag_catalogue(settings)


@flow(name="undo-tagging")
def undo_tagging(settings: UndoSettings) -> object:
    """Restore the tags that a run replaced, byte for byte where the file was not changed since."""
    from flows import undo_tagging as flow_module

    with observed("undo_tagging"):
        return flow_module.undo_tagging(settings)


@flow(name="retrain-nightly")
def retrain_nightly(settings: NightlySettings) -> object:
    """Build, train, compare with the champion on the same test tracks; promote the new model if it is better."""
    from flows import retrain_nightly as flow_module

    with observed("retrain_nightly"):
        return flow_module.retrain_nightly(settings)


@flow(name="cross-validate")
def cross_validate(settings: CrossValidationSettings) -> object:
    """Cross-validate a network and a baseline on the same folds. Rerun it to resume it."""
    from flows import cross_validate as flow_module

    with observed("cross_validate"):
        return flow_module.cross_validate(settings)


@flow(name="prune-prefect")
def prune_prefect(settings: PruneSettings) -> object:
    """Remove old runs, logs, artifacts and events from the Prefect server's database."""
    from flows.services.retention import prune_database

    with observed("prune_prefect"):
        return prune_database(settings)


@flow(name="run-experiments")
def run_experiments(settings: ExperimentSettings) -> object:
    """Run a study: genres, repeats, spectrograms, models and others. Rerun it to resume it."""
    from flows import run_experiments as flow_module

    with observed("run_experiments"):
        return flow_module.run_experiments(settings)
