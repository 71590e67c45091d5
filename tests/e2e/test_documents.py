"""Every command, settings file and example of the README and of docs/ is run, from top to bottom, as a reader would."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.tags import write_genres
from tests.support.prefect_ui import COMMAND

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "deploy").glob("*.md")),
]
MUSIC = ROOT / "tests/data/demo_music"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {
    "serve": "tests/e2e/test_ui.py",
    "demo": "tests/integration/test_story.py",
    "fma": "tests/unit/flows/test_fetch_fma.py",  # from a server on loopback
    "experiment": "tests/integration/test_experiments.py",
    "cross-validate": "tests/integration/test_cross_validation.py",  # the bundled music has too few artists
}
# What makes training short; the flags come last, and win.
SHORTER = {
    "train": ["--training.epochs=1", "--training.crop-s=1", "--training.model.name=shallow"],
    "retrain-nightly": ["--train.training.model.name=features"],
}
# One process runs all commands: starting costs seconds. A number on standard output is a command's exit status.
RUN_COMMANDS = """
import json, sys
from flows import cli
for line in sys.stdin:
    sys.argv[1:] = json.loads(line)
    try:
        status = cli.main() or 0
    except SystemExit as end:
        status = end.code
    print(f"status {status}", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    language: str
    text: str


def blocks():
    for path in DOCUMENTS:
        for language, text in FENCE.findall(path.read_text()):
            yield Block(path.name, language, text)


def commands():
    for block in blocks():
        if block.language == "sh":
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield block.document, words


def test_documents_show_each_verb():
    shown = {words[1] for _, words in commands() if words[0] == "spectrogram-one"}
    assert shown >= {
        "build",
        "train",
        "tag",
        "undo",
        "cross-validate",
        "experiment",
        "retrain-nightly",
        "serve",
        "models",
        "store",
        "tags",
        "doctor",
        "certificates",
        "backup",
        "restore",
    }


def test_every_make_target_and_extra_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for document, words in commands():
        match words:
            case ["make", *named]:
                assert set(named) <= targets, document
            case ["pip", "install", *options]:
                (extra,) = re.findall(r"\[(\w+)\]", " ".join(options))
                assert extra in extras, document
            case ["spectrogram-one" | "dask", *_]:
                pass
            case _:
                pytest.fail(f"{document}: nothing runs {shlex.join(words)}")


def test_links_lead_to_files():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Make a folder with a store, a model and files without genres, as the documents suppose."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "MY_FILES").mkdir()
    for song in sorted(MUSIC.glob("fma_small/*/*.mp3"))[:3]:
        shutil.copy(song, folder / "MY_FILES")
        write_genres(folder / "MY_FILES" / song.name, [])
    shutil.copy(folder / "MY_FILES" / song.name, folder / "song.mp3")
    subprocess.run([COMMAND, "build", str(MUSIC)], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.timeout(900)
def test_every_command_runs(workplace):
    """In one folder, document after document; what an earlier one built, trained or wrote is there for the next."""
    with (
        (workplace / "errors").open("w") as errors_file,
        subprocess.Popen(
            [sys.executable, "-c", RUN_COMMANDS],
            cwd=workplace,
            env=os.environ | {"PREFECT_HOME": str(workplace / "prefect")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_file,
            text=True,
        ) as process,
    ):

        def run(words, document):
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
            shown = []
            for line in process.stdout:
                if line.startswith("status "):
                    break
                shown.append(line)
            errors = (workplace / "errors").read_text()[-2_000:]
            assert line == "status 0\n", f"{document}: {shlex.join(words)}\n{''.join(shown)}\n{errors}"

        for block in blocks():
            match block.language:
                case "toml":
                    write_settings(block, workplace)
                case "sh":
                    for line in block.text.splitlines():
                        words = shlex.split(line, comments=True)
                        if words[:1] == ["spectrogram-one"] and words[1] not in ELSEWHERE:
                            run(filled(words[1:], workplace), block.document)


def write_settings(block, folder):
    """Write a TOML block into the file that its first line names."""
    name = block.text.partition("\n")[0].removeprefix("#").strip()
    assert name.endswith(".toml"), f"{block.document}: {name}"
    tomllib.loads(block.text)
    (folder / name).write_text(block.text.replace("MUSIC", str(MUSIC)))


def filled(words, folder):
    """Put real names in the place of MUSIC, RUN and VERSION; shorten what trains."""
    runs = (
        sorted(it.name for it in (folder / "data/tagging").glob("2*")) if (folder / "data").exists() else []
    )
    versions = sorted(it.name for it in (folder / "data/models").glob("2*"))
    names = {
        "MUSIC": str(MUSIC),
        "RUN": runs[-1] if runs else "RUN",
        "VERSION": versions[-1] if versions else "",
    }
    pattern = re.compile(rf"\b({'|'.join(names)})\b")
    return [pattern.sub(lambda found: names[found[0]], word) for word in words] + SHORTER.get(words[0], [])


def test_every_python_example_runs_and_that_of_the_store_without_our_code(workplace, tmp_path):
    """A store is plain Zarr: its example needs nothing of ours."""
    watch = "import sys; assert not {'store', 'preprocessing', 'training', 'flows'} & set(sys.modules)"
    environment = {**os.environ, "MPLBACKEND": "agg", "MPLCONFIGDIR": str(tmp_path)}
    examples = [block for block in blocks() if block.language == "python"]
    assert examples
    for block in examples:
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                "-c",
                f"{block.text}\n{watch if block.document == 'store-format.md' else ''}",
            ],
            cwd=workplace,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.document}:\n{block.text}\n{done.stderr}"
