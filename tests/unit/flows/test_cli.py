"""The command line in this process: arguments in any order, errors in one line, and what a command imports."""

import json
import subprocess
import sys

import pytest
from cyclopts import UnusedCliTokensError

from flows import cli
from flows.cluster.settings import HostSettings
from flows.cluster.training_agent import AgentResult
from flows.cluster.training_hosts import train_on_hosts
from store.errors import BadInput, CommitConflict, ServiceUnavailable, TrainingStopped
from tests.support.one_host_client import OneHostClient
from tests.support.tagging_model import publish_small_model

SLOW_PACKAGES = (
    "torch",
    "prefect",
    "distributed",
    "dask",
    "sklearn",
    "scipy",
    "matplotlib",
    "zarr",
    "numba",
    "pyarrow",
)
RUN_COMMAND = f"""
import json, sys
from flows import cli
try:
    status = cli.main() or 0
except SystemExit as end:
    status = end.code
print(json.dumps([status, [name for name in {SLOW_PACKAGES} if name in sys.modules]]))
"""


@pytest.fixture
def flow_settings(monkeypatch, tmp_path):
    """Replace `run_flow` by a function that keeps the settings; return the list of them."""
    (tmp_path / "music").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = []

    class Summary:
        def lines(self):
            return []

    def run_flow(name, settings):
        kept.append(settings)
        return Summary()

    monkeypatch.setattr("flows.commands.run.run_flow", run_flow)
    return kept


def main(monkeypatch, *arguments):
    """Run the command line; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["spectrogram-one", *arguments])
    monkeypatch.setattr(cli.app, "config", None)
    try:
        cli.main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize(
    "arguments",
    [
        "build music --store x",
        "build --store x music",
        "build --store=x music",
        "build --source music --store x",
        "build --tracks-per-batch 64 music --store x",
    ],
)
def test_a_positional_argument_may_stand_anywhere(arguments, monkeypatch, flow_settings):
    assert main(monkeypatch, *arguments.split()) == 0
    (settings,) = flow_settings
    assert (settings.source, settings.store) == ("music", "x")


ONE_SOURCE = (
    "wanted one --source, in quotes if it has spaces, and flags for other settings; "
    "of several files, name the folder"
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train music", "'music': unexpected argument; settings need their flags"),
        ("tags diff a b c", "'c': unexpected argument; settings need their flags"),
        ("build music x", f"'x': unexpected argument; {ONE_SOURCE}"),
        ("build --store x music elsewhere", f"'elsewhere': unexpected argument; {ONE_SOURCE}"),
        ("tag 1 2 3 4", f"'2' '3' '4': unexpected argument; {ONE_SOURCE}"),
        ("tag 1 2 3 4 5 6", f"'2' '3' '4' and 2 more: unexpected argument; {ONE_SOURCE}"),
        ("undo a b", f"'b': unexpected argument; {ONE_SOURCE.replace('source', 'run').partition('; of')[0]}"),
    ],
)
def test_other_settings_need_their_flags(arguments, line, monkeypatch, flow_settings, capsys):
    assert main(monkeypatch, *arguments.split()) == cli.EXIT_USAGE
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not flow_settings


@pytest.mark.parametrize("command", ["build", "tag"])
def test_a_source_that_cannot_be_recorded_is_one_line(command, monkeypatch, flow_settings, capsys, tmp_path):
    (tmp_path / "caf\udce9.mp3").touch()
    assert main(monkeypatch, command, "caf\udce9.mp3") == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == (
        "error: caf\\udce9.mp3: this path is not UTF-8 and cannot be recorded; rename it\n"
    )
    assert not flow_settings


def test_the_module_runs_the_command_line():
    command = [sys.executable, "-m", "flows.cli", "build"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == cli.EXIT_USAGE
    assert "--source requires an argument" in done.stderr


@pytest.mark.parametrize("arguments", ["serve 4300", "register pool", "prune 5"])
def test_commands_of_the_prefect_server_need_their_flags(arguments):
    with pytest.raises(UnusedCliTokensError):
        cli.app.parse_args(arguments.split(), exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BadInput("--store: gone"), "--store: gone"),
        (ServiceUnavailable("http://host: no Prefect server"), "http://host: no Prefect server"),
        (TrainingStopped("the loss\nis not finite"), "the loss is not finite"),
        (CommitConflict("snapshot 3 exists"), "snapshot 3 exists"),
        (
            OSError(28, "No space left on device", "store/shard"),
            "store/shard: No space left on device; free some space on that disk; "
            "then run the same command again to resume",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line(error, line, monkeypatch, flow_settings, capsys):
    def fail(name, settings):
        raise error

    monkeypatch.setattr("flows.commands.run.run_flow", fail)
    assert main(monkeypatch, "build", "music") == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == f"error: {line}\n"


def test_an_interrupt_reports_how_to_resume(monkeypatch, flow_settings, capsys):
    def interrupt(name, settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.commands.run.run_flow", interrupt)
    assert main(monkeypatch, "build", "music") == cli.EXIT_INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted; run the same command again to resume\n"


@pytest.mark.parametrize(
    ("client", "line"),
    [
        (
            OneHostClient(AgentResult("10.0.0.1", 1, None, ["RuntimeError: x", "exit"])),
            "error: torchrun on 10.0.0.1 ended with status 1, all restarts used up (--hosts.max-restarts); "
            "it wrote: RuntimeError: x; the log of the run has the rest; ",
        ),
        (
            OneHostClient(None),
            "error: the training reported nothing for 0 s; all 1 restarts are used up (--hosts.max-restarts); ",
        ),
    ],
    ids=["failed", "silent"],
)
def test_a_training_without_restarts_left_is_one_line(client, line, monkeypatch, flow_settings, capsys):
    def train(name, settings):
        train_on_hosts(
            client,
            "run",
            HostSettings(processes_per_host=1, max_restarts=1),
            micro_batches=1,
            stall_timeout_s=0.0,
            on_event=lambda event: None,
        )

    monkeypatch.setattr("flows.cluster.training_hosts.RESTART_ALLOWANCE_S", 0.0)
    monkeypatch.setattr("flows.commands.run.run_flow", train)
    assert main(monkeypatch, "build", "music") == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == (
        f"{line}run the same command again to resume from the last checkpoint\n"
    )
    assert client.cancelled == client.submitted


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model version and an audio file."""
    folder = tmp_path_factory.mktemp("commands")
    publish_small_model(f"{folder}/models")
    return folder


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--help", 0),
        ("build --help", 0),
        ("models list --models models", 0),
        ("tags show SONG", 0),
        ("tag nowhere --models models", 1),
        ("train --store nowhere", 1),
        ("build nowhere", 1),
        ("build --hope 1", 2),
        ("build music --spectrogram.mel.hop 0", 2),
    ],
)
def test_a_fast_command_imports_nothing_slow(arguments, status, folder):
    song = "tests/data/demo_music/fma_small/200/200001.mp3"
    words = [{"SONG": song, "models": f"{folder}/models"}.get(word, word) for word in arguments.split()[1:]]
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMAND, arguments.split()[0], *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [status, []]
