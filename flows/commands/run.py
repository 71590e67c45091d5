"""The commands of the command line that run a flow.

A flow is imported when its settings were checked, since its imports take seconds.
"""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.checks import (
    check_build,
    check_cross_validation,
    check_experiment,
    check_nightly,
    check_tag,
    check_training,
    check_undo,
)
from flows.recording import run_flow
from flows.services.environment import make_prefect_home
from flows.settings import (
    BuildSettings,
    CrossValidationSettings,
    DemoSettings,
    FmaSettings,
    NightlySettings,
    PruneSettings,
    RegisterSettings,
    ServeSettings,
    TagSettings,
    TrainModelSettings,
    UndoSettings,
)
from flows.study_runs.settings import ExperimentSettings

if TYPE_CHECKING:
    from flows.reporting.tagging_summary import TagSummary

EXIT_FILES_LEFT = 3  # all was done that could be, and files were skipped or rejected
Flags = Parameter(name="*")  # every field of the settings is a flag: --spectrogram.mel.hop 256


def build(settings: Annotated[BuildSettings, Flags]) -> None:
    """Decode a catalogue and publish its spectrograms. Run it again to resume it."""
    check_build(settings)
    print("\n".join(run_flow("build_dataset", settings).lines()))


def train(settings: Annotated[TrainModelSettings, Flags] = TrainModelSettings()) -> None:
    """Train a network, evaluate it on the test tracks, publish it as a model version."""
    check_training(settings)
    print("\n".join(run_flow("train_model", settings).lines()))


def tag(settings: Annotated[TagSettings, Flags] = TagSettings()) -> None:
    """Predict the genres of audio files and show them; write them into the files if asked to.

    The exit status is 3 if files were skipped or rejected.
    """
    check_tag(settings)
    _print_tagging(run_flow("tag_catalogue", settings))


def undo(settings: Annotated[UndoSettings, Flags]) -> None:
    """Restore the tags that a run replaced. An undo can be undone. The exit status is 3 if files were skipped."""
    check_undo(settings)
    _print_tagging(run_flow("undo_tagging", settings))


def cross_validate(settings: Annotated[CrossValidationSettings, Flags] = CrossValidationSettings()) -> None:
    """Evaluate settings on folds that share no artist, beside a baseline. Run it again to resume it."""
    check_cross_validation(settings)
    print("\n".join(run_flow("cross_validate", settings).lines()))


def experiment(settings: Annotated[ExperimentSettings, Flags]) -> None:
    """Run a study: its runs as results.csv, and a page that answers its question. Run it again to resume it."""
    check_experiment(settings)
    print("\n".join(run_flow("run_experiments", settings).lines()))


def retrain(settings: Annotated[NightlySettings, Flags]) -> None:
    """Build what is new, train on it, promote the new model if it beats the champion."""
    check_nightly(settings)
    print("\n".join(run_flow("retrain_nightly", settings).lines()))


def demo(settings: Annotated[DemoSettings, Flags] = DemoSettings()) -> None:
    """Build, train, evaluate and tag the bundled music."""
    from flows.demo import run_demo

    print("\n".join(run_demo(settings)))


def fma(settings: Annotated[FmaSettings, Flags]) -> None:
    """Download the Free Music Archive's dataset, and train a first model on it if asked to. Rerun it to resume it."""
    from flows.fetch_fma import fetch_fma

    print("\n".join(fetch_fma(settings)))


def serve(settings: Annotated[ServeSettings, Flags] = ServeSettings()) -> None:
    """Start the Prefect UI with the flows on this machine, and execute the runs submitted there."""
    make_prefect_home()
    from flows.deployments import serve_flows

    serve_flows(settings)


def register(settings: Annotated[RegisterSettings, Flags] = RegisterSettings()) -> None:
    """Register the flows at the configured Prefect server, for the workers of a process work pool."""
    make_prefect_home()
    from flows.deployments import register_flows

    print("\n".join(register_flows(settings)))


def prune(settings: Annotated[PruneSettings, Flags] = PruneSettings()) -> None:
    """Remove old runs, logs, artifacts and events from the Prefect server's database on this machine."""
    from flows.services.retention import prune_database

    print("\n".join(prune_database(settings).lines()))


def _print_tagging(summary: "TagSummary") -> None:
    from rich.console import Console

    console = Console(markup=False)  # file names may contain brackets
    for table in summary.tables():
        console.print(table)
    print("\n".join(summary.lines()), flush=True)
    if any(summary.statuses.get(status) for status in ("skipped", "rejected")):
        sys.exit(EXIT_FILES_LEFT)
