"""`spectrogram-one`: the flows as commands. The module of a command is imported when the command is given."""

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from cyclopts.config import Dict
from pydantic import ValidationError

from flows import recording
from flows.reporting.observation import LOG_VARIABLE
from flows.services.environment import (
    HEARTBEATS,
    bypass_proxies_on_loopback,
    choose_matplotlib_folder,
    choose_prefect_home,
    choose_prefect_ui_folder,
    share_auth_string,
)
from store.errors import BadInput, SpectrogramOneError
from store.fs.disk_errors import describe_os_error, printable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# Prefect reads these when it is imported. Nothing is sent to servers of its makers.
PREFECT_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # V2 makes the browser contact an analytics host
    **HEARTBEATS,
}
# The command prints the result itself; the log of the run goes to the Prefect server only.
QUIET_ENVIRONMENT = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_FLOW_RUNS_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_TASK_RUNS_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
}
EXIT_BAD_INPUT, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
RESUME = "run the same command again to resume"
MAX_NAMED = 3  # unexpected arguments in a message

app = App(
    name="spectrogram-one",
    suppress_keyboard_interrupt=False,
    help="Predict the genre of music from its audio: build spectrograms, train, tag.",
)
for _name, _function, _help in (
    ("build", "build", "Decode a catalogue and publish its spectrograms. Run it again to resume it."),
    ("train", "train", "Train a network, evaluate it on the test tracks, publish it as a model version."),
    ("tag", "tag", "Predict the genres of audio files and show them; write them into the files if asked to."),
    ("undo", "undo", "Restore the tags that a run replaced. An undo can be undone."),
    (
        "cross-validate",
        "cross_validate",
        "Evaluate settings on folds that share no artist, beside a baseline.",
    ),
    ("experiment", "experiment", "Run a study: genres, repeats, spectrograms, models and others, by name."),
    (
        "retrain-nightly",
        "retrain",
        "Build what is new, train, promote the new model if it beats the champion.",
    ),
    ("fma", "fma", "Download the Free Music Archive's dataset, and train a first model on it if asked to."),
    ("demo", "demo", "Build, train, evaluate and tag the bundled music."),
    (
        "serve",
        "serve",
        "Start the Prefect UI with the flows on this machine, and execute the runs submitted there.",
    ),
    (
        "register",
        "register",
        "Register the flows at the configured Prefect server, for the workers of a process work pool.",
    ),
    ("prune", "prune", "Remove old runs, logs, artifacts and events from the Prefect server's database."),
):
    app.command(f"flows.commands.run:{_function}", name=_name, help=_help)
for _name, _help in (
    ("doctor", "Check this machine, and say for each finding what to do."),
    ("certificates", "Make the certificates for TLS between the hosts of a Dask cluster."),
    ("backup", "Copy models, champion, tagging runs with their journals, and Prefect's database."),
    ("restore", "Put a backup back, once it was checked. Nothing that exists is overwritten."),
):
    app.command(f"flows.commands.operations:{_name}", name=_name, help=_help)
app.command(
    "flows.commands.models:app", name="models", help="Inspect model versions, and choose the champion."
)
app.command(
    "flows.commands.tags:app", name="tags", help="Inspect the tags of files, and the runs that wrote them."
)
app.command(
    "flows.commands.store:app",
    name="store",
    help="Inspect the snapshots of a store, verify it, free its space, copy it.",
)
app.meta.suppress_keyboard_interrupt = False


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Annotated[Path | None, Parameter(help="TOML file with the settings of the command")] = None,
    prefect: Annotated[
        bool, Parameter(negative="", help="Record the run in Prefect; implied where PREFECT_API_URL is set")
    ] = False,
    log_json: Annotated[
        bool, Parameter(negative="", help="Write the log to standard error as JSON, one object a line")
    ] = False,
) -> None:
    """Run a command with the settings from its flags, and those not given from a file."""
    recording.asked_for.set(prefect)
    if log_json:
        os.environ[LOG_VARIABLE] = "json"  # for the processes of runs, too
    app.config = None if config is None else _read_config(config, tokens)
    app(tokens, exit_on_error=False, print_error=False)


def _read_config(config: Path, tokens: tuple[str, ...]) -> Dict:
    """Read a settings file, and nest its keys below the command. Raises: BadInput if it is not TOML."""
    if not config.is_file():
        raise BadInput(f"{config}: no such file; --config wants a TOML file of settings")
    try:
        settings: dict[str, Any] = tomllib.loads(config.read_text(encoding="utf-8"))
    except ValueError as why:
        raise BadInput(f"{config}: {why}; --config wants a TOML file of settings") from None
    # Without the nesting, cyclopts would ignore keys that are also names of commands, such as `models`.
    for command in reversed(app.parse_commands(tokens)[0]):
        settings = {command: settings}
    return Dict(settings, source=str(config))


def main() -> None:
    """Run the command line. An error that a user can correct is one line, not a traceback."""
    serves = sys.argv[1:2] == ["serve"]
    for name, value in (PREFECT_ENVIRONMENT | ({} if serves else QUIET_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    bypass_proxies_on_loopback()
    share_auth_string()
    choose_prefect_home()
    choose_prefect_ui_folder()
    choose_matplotlib_folder()
    try:
        app.meta(sys.argv[1:], exit_on_error=False, print_error=False)
    except SpectrogramOneError as why:
        _fail(str(why), EXIT_BAD_INPUT)
    except BrokenPipeError:  # the reader of our output, such as `head`, ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    except OSError as why:
        _fail(f"{describe_os_error(why)}; then {RESUME}", EXIT_BAD_INPUT)
    except CycloptsError as why:
        _fail(_usage_error(why), EXIT_USAGE)
    except KeyboardInterrupt:
        _fail(f"interrupted; {RESUME}", EXIT_INTERRUPTED)


def _usage_error(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        return "; ".join(_setting_error(each) for each in error.__cause__.errors())
    if isinstance(error, UnusedCliTokensError):
        return _unexpected_arguments(error)
    return str(error)


def _unexpected_arguments(error: UnusedCliTokensError) -> str:
    """Return what to do about arguments that no setting takes, such as all files but the first of `tag *.mp3`."""
    found = error.unused_tokens or []
    more = f" and {len(found) - MAX_NAMED:,} more" if len(found) > MAX_NAMED else ""
    names = f"{' '.join(map(repr, found[:MAX_NAMED]))}{more}"
    arguments = () if error.app is None else error.app.assemble_argument_collection()
    unflagged = [it.name for it in arguments if it.index is not None]
    if len(unflagged) != 1:
        return f"{names}: unexpected argument; settings need their flags"
    several = "; of several files, name the folder" if unflagged == ["--source"] else ""
    return (
        f"{names}: unexpected argument; wanted one {unflagged[0]}, in quotes if it has spaces, and flags for other "
        f"settings{several}"
    )


def _setting_error(error: "ErrorDetails") -> str:
    flag = "--" + ".".join(map(str, error["loc"])).replace("_", "-")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{flag}: required"
    if error["type"] != "value_error":
        return f"{flag}: {message}; found {error['input']!r}"
    # A rule between settings names them by flags that are relative to where it is written.
    return re.sub(r"--(?=[a-z])", f"{flag}.", message) if error["loc"] else message


def _fail(message: str, status: int) -> None:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
