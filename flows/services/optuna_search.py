"""The search for settings: Optuna's study, which Dask workers share through a journal file.

Optuna is an extra, and imported only here, when a search runs.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from store.errors import BadInput
from store.fs.files import local_path, make_folder, remove
from training.fit.settings import TrainSettings
from training.studies.trial import Trial, train_network

JOURNAL_FILE, STUDY_NAME = "optuna.journal", "tune"
STARTUP_TRIALS, WARMUP_EPOCHS = 5, 2  # before anything is pruned
CROPS_S, WIDTHS = (2.0, 4.0, 8.0), (8, 16, 32)


def import_optuna() -> ModuleType:
    """Import Optuna. Raises: BadInput if it is not installed."""
    try:
        import optuna
    except ImportError as why:
        raise BadInput(f"tune: Optuna is not installed here ({why}); `pip install -e .[research]`") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def open_search(folder: str, seed: int) -> Any:
    """Open Optuna's study in a folder, or create it. Raises: BadInput if the folder is not on a local disk."""
    optuna = import_optuna()
    path = local_path(folder)
    if path is None:
        raise BadInput(
            f"{folder}: Optuna's journal needs a disk that all workers share; use a path for --results"
        )
    make_folder(path)
    backend = optuna.storages.journal.JournalFileBackend(str(path / JOURNAL_FILE))
    return optuna.create_study(
        study_name=STUDY_NAME,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS),
        load_if_exists=True,
    )


def train_proposal(trial: Trial, folder: str, number: int) -> tuple[dict[str, Any], bool]:
    """Train with settings that Optuna proposes, until the end or until it prunes.

    Returns the settings and the loss, and whether it was pruned.

    What is minimised is the validation loss; the test tracks stay unread.
    """
    optuna = import_optuna()
    asked = open_search(folder, trial.training.seed + number).ask()
    states = optuna.trial.TrialState
    proposed = propose(asked, trial.training)
    losses: list[float] = []

    def report(epoch: dict[str, Any]) -> None:
        losses.append(epoch["validation_loss"])
        asked.report(min(losses), step=len(losses))
        if len(losses) < proposed.epochs and asked.should_prune():
            raise optuna.TrialPruned

    remove(trial.folder)  # of a process that was killed: its checkpoint has the settings of another proposal
    state = states.FAIL
    try:
        train_network(replace(trial, training=proposed), report)
        state = states.COMPLETE
    except optuna.TrialPruned:
        state = states.PRUNED
    finally:
        asked.study.tell(asked, min(losses) if state == states.COMPLETE else None, state=state)
        remove(trial.folder)
    found = {"optuna_trial": asked.number, "validation_loss": min(losses), "epochs_done": len(losses)}
    return {**found, **asked.params}, state == states.PRUNED


def propose(asked: Any, training: TrainSettings) -> TrainSettings:
    """Return the settings of a training with those that Optuna proposes in their place."""
    proposed = {
        "learning_rate": asked.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "weight_decay": asked.suggest_float("weight_decay", 1e-3, 0.3, log=True),
        "label_smoothing": asked.suggest_float("label_smoothing", 0.0, 0.3),
        "crop_s": asked.suggest_categorical("crop_s", CROPS_S),
        "model.dropout": asked.suggest_float("model.dropout", 0.0, 0.7),
        "model.width": asked.suggest_categorical("model.width", WIDTHS),
        "augment.masks": asked.suggest_int("augment.masks", 0, 3),
        "augment.mixup": asked.suggest_float("augment.mixup", 0.0, 0.5),
    }
    if training.model.network == "short-chunk-resnet":
        proposed["model.depth"] = asked.suggest_int("model.depth", 1, 5)
    return with_settings(training, proposed)


def with_settings(training: TrainSettings, changes: Mapping[str, Any]) -> TrainSettings:
    """Return training settings with some of them changed, by dotted names."""
    content = training.model_dump()
    for name, value in changes.items():
        *groups, last = name.split(".")
        where = content
        for group in groups:
            where = where[group]
        where[last] = value
    return TrainSettings.model_validate(content)


def rank_importance(folder: str) -> dict[str, float]:
    """Return the share of each setting in how much the loss varies; {} with too few finished trials."""
    study = open_search(folder, 0)
    optuna = import_optuna()
    finished = [it for it in study.trials if it.state == optuna.trial.TrialState.COMPLETE]
    if len(finished) < STARTUP_TRIALS:
        return {}
    return dict(optuna.importance.get_param_importances(study))
