"""`spectrogram-one`: the same flows from a terminal."""

import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated

# Prefect reads these when it is imported. Nothing here calls home.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false")
os.environ.setdefault("PREFECT_SERVER_UI_V2_ENABLED", "false")  # the newer one asks an analytics host
if sys.argv[1:2] != ["serve"]:
    # Here the command tells the story itself; the run's log goes to the Prefect server alone.
    for handler in ("CONSOLE", "CONSOLE_FLOW_RUNS", "CONSOLE_TASK_RUNS"):
        os.environ.setdefault(f"PREFECT_LOGGING_HANDLERS_{handler}_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from rich.console import Console

from flows.build_dataset import build_dataset
from flows.commands.models import (
    compare_models,
    export_model,
    list_models,
    promote_model,
    rollback_model,
    show_model,
)
from flows.commands.tags import diff_tags, runs_table, show_tags
from flows.cross_validate import run_experiments
from flows.demo import play_demo
from flows.deployments import serve_flows
from flows.reporting.tagging_summary import TagSummary
from flows.retrain_nightly import retrain_nightly
from flows.services.prefect_server import prefect_server
from flows.settings import (
    BuildSettings,
    CrossValidationSettings,
    DemoSettings,
    NightlySettings,
    ServeSettings,
    TagSettings,
    TrainModelSettings,
    UndoSettings,
)
from flows.tag_catalogue import tag_catalogue
from flows.train_model import train_model
from flows.undo_tagging import undo_tagging
from store.errors import BadInput, SpectrogramOneError

MODELS, RUNS = "data/models", "data/tagging"
EXIT_BAD_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
SHORT_FOR = {"build": "--source", "tag": "--source", "undo": "--run"}  # `build FOLDER`, `undo RUN`

app = App(
    name="spectrogram-one", suppress_keyboard_interrupt=False, help="Tell a song's genre by listening to it."
)
models_app = App(name="models", help="Look at model versions, and choose the one in service.")
app.command(models_app)
tags_app = App(name="tags", help="Look at the tags of files, and at the runs that wrote them.")
app.command(tags_app)
# Every field of the settings is a flag: --spectrogram.mel.hop 256.
Flags = Parameter(name="*")
Root = Annotated[str, Parameter(help="Folder or URL where model versions are kept")]
Which = Annotated[str, Parameter(help="A version, the beginning of its name, champion or latest")]


@app.command
def build(*, settings: Annotated[BuildSettings, Flags]) -> None:
    """Decode a catalogue and publish its spectrograms. Run it again to resume it."""
    with prefect_server():
        print("\n".join(build_dataset(settings).lines()))


@app.command
def train(*, settings: Annotated[TrainModelSettings, Flags] = TrainModelSettings()) -> None:
    """Train a network, score it on tracks it never saw, keep it as a model version."""
    with prefect_server():
        print("\n".join(train_model(settings).lines()))


@app.command
def tag(*, settings: Annotated[TagSettings, Flags] = TagSettings()) -> None:
    """Listen to audio files and show the genres they would get; write them if told to."""
    with prefect_server():
        _tell(tag_catalogue(settings))


@app.command
def undo(*, settings: Annotated[UndoSettings, Flags]) -> None:
    """Put back the tags that a run replaced. An undo can be undone."""
    with prefect_server():
        _tell(undo_tagging(settings))


@tags_app.command(name="show")
def show_tags_of(*paths: Path) -> None:
    """Show what the tags of files say, those in folders too."""
    print("\n".join(show_tags(paths)))


@tags_app.command(name="diff")
def diff_tags_of(one: Path, other: Path) -> None:
    """Show where the tags of two files, or of the files of two folders, differ."""
    print("\n".join(diff_tags(one, other)) or "no tag differs")


@tags_app.command(name="runs")
def list_tagging_runs(*, runs: str = RUNS) -> None:
    """List the runs that listened, wrote and undid, oldest first."""
    Console(markup=False).print(runs_table(runs))


@app.command
def cross_validate(
    *, settings: Annotated[CrossValidationSettings, Flags] = CrossValidationSettings()
) -> None:
    """Judge settings by folds that share no artist, beside a baseline. Run it again to resume it."""
    with prefect_server():
        print("\n".join(run_experiments(settings).lines()))


@app.command
def demo(*, settings: Annotated[DemoSettings, Flags] = DemoSettings()) -> None:
    """Play the whole story on the bundled music: build, train, score, tag."""
    with prefect_server():
        print("\n".join(play_demo(settings)))


@app.command
def serve(*, settings: Annotated[ServeSettings, Flags] = ServeSettings()) -> None:
    """Offer the flows in the Prefect UI on this machine, and run what is submitted there."""
    serve_flows(settings)


@app.command(name="retrain-nightly")
def retrain(*, settings: Annotated[NightlySettings, Flags]) -> None:
    """Build what is new, train on it, promote the model if it beats the champion; or say why not."""
    with prefect_server():
        print("\n".join(retrain_nightly(settings).lines()))


@models_app.command(name="list")
def list_versions(*, models: Root = MODELS) -> None:
    """List the versions, oldest first; * marks the one in service."""
    Console(markup=False).print(list_models(models))


@models_app.command
def show(version: Which = "champion", *, models: Root = MODELS) -> None:
    """Tell what a version is, how good, and when it was in service."""
    print("\n".join(show_model(models, version)))


@models_app.command
def compare(one: Which, other: Which, *, models: Root = MODELS) -> None:
    """Compare two versions on the test tracks that both were heard on."""
    table, told = compare_models(models, one, other)
    Console(markup=False).print(table)
    print("\n".join(told))


@models_app.command
def promote(version: Which, *, models: Root = MODELS, reason: str = "by hand") -> None:
    """Put a version into service."""
    print(promote_model(models, version, reason))


@models_app.command
def export(target: str, *, version: Which = "champion", models: Root = MODELS) -> None:
    """Write a version's network as an ONNX file, for `tag --engine onnx --onnx FILE` and other programs."""
    print(export_model(models, version, target))


@models_app.command
def rollback(*, models: Root = MODELS) -> None:
    """Put the champion before this one back into service; once more goes one further back."""
    print(rollback_model(models))


def _tell(summary: TagSummary) -> None:
    console = Console(markup=False)  # file names may hold brackets
    for table in summary.tables():
        console.print(table)
    print("\n".join(summary.lines()))


app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(help="TOML file with the settings of the command")] = None,
) -> None:
    """Run a command, its settings taken from flags first, then from a file."""
    if config is not None:
        if not config.is_file():
            raise BadInput(f"{config}: no such file; --config wants a TOML file of settings")
        try:
            settings = tomllib.loads(config.read_text(encoding="utf-8"))
        except ValueError as why:
            raise BadInput(f"{config}: {why}; --config wants a TOML file of settings") from None
        # A flat file would be read without the keys that are commands of ours, too: `models`, of all things.
        for command in reversed(app.parse_commands(tokens)[0]):
            settings = {command: settings}
        app.config = Dict(settings, source=str(config))
    if len(tokens) > 1 and tokens[0] in SHORT_FOR and not tokens[1].startswith("-"):
        tokens = (tokens[0], SHORT_FOR[tokens[0]], *tokens[1:])
    app(tokens, exit_on_error=False, print_error=False)


def main() -> None:
    """Run the command line; a mistake of the user's is one line, not a traceback."""
    try:
        app.meta(exit_on_error=False, print_error=False)
    except SpectrogramOneError as why:
        _fail(str(why), EXIT_BAD_INPUT)
    except BrokenPipeError:  # whoever read our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    except OSError as why:
        _fail(f"{why}; mend that, then run the same command again to go on from here", EXIT_BAD_INPUT)
    except CycloptsError as why:
        _fail(_usage_error(why), EXIT_USAGE)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on from here", EXIT_INTERRUPTED)


def _usage_error(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        return "; ".join(_setting_error(each) for each in error.__cause__.errors())
    return str(error)


def _setting_error(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"]))
    if not where:  # a rule between settings, whose message says all
        return error["msg"].removeprefix("Value error, ")
    return f"--{where.replace('_', '-')}: {error['msg']}; found {error['input']!r}"


def _fail(message: str, status: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
