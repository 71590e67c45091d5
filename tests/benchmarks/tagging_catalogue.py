"""What tagging a large catalogue costs: memory of the flow, going on after a crash, the journal, the undo.

    python -m tests.benchmarks.tagging_catalogue [--files 100000] [--seconds 4] [--keep FOLDER]

Real files: four seconds of the demo music in five formats, with varied tags, copied into folders of artists and
albums; the default network, with fresh weights. The command line runs as a person runs it; half way through the
listening the whole of it is killed with SIGKILL and started again, then the run is undone.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import safetensors.torch

from preprocessing.mel.settings import MelSettings
from store.model_registry import promote, publish_version
from store.tags.write import copy_with_genres
from tests.support.audio_formats import CODECS, encode
from tests.support.audio_hash import audio_hash
from training.fit.settings import TrainSettings
from training.inference.model_version import ModelIdentity
from training.networks.network import WEIGHTS_FILE, build_model
from training.networks.settings import ModelSettings

COMMAND = str(Path(sys.executable).with_name("spectrogram-one"))
SUFFIXES = (".mp3", ".mp3", ".mp3", ".flac", ".ogg", ".m4a", ".opus")  # half are MP3, as in the world
GENRES = ("Electronic", "Folk", "Hip-Hop", "Instrumental", "International", "Pop", "Rock", "Experimental")
VARIANTS: tuple[tuple[list[str], dict[str, str]], ...] = (
    ([], {}),
    ([], {"GENRE_MODEL": "of old"}),
    (["Polka"], {}),
)
FILES_PER_ALBUM = 12
LOOK_EVERY_S = 0.5


def main() -> None:
    """Make the catalogue, tag it, kill it, go on, undo it; print what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--keep", type=Path, help="work here, and leave all there")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp())
    make_catalogue(folder, arguments.files, arguments.seconds)
    make_model(folder / "models")
    before = sample_hashes(folder / "music")
    tag_and_kill(folder, arguments.files)
    undo(folder)
    assert sample_hashes(folder / "music") == before, "a file's audio changed"
    if arguments.keep is None:
        shutil.rmtree(folder)


def make_catalogue(folder: Path, files: int, seconds: float) -> None:
    """Lay out artists and albums: one file in seven has a genre, one in three has notes from before."""
    if (folder / "music").exists():
        return
    (folder / "originals").mkdir(parents=True)
    originals = []
    for number, suffix in enumerate(dict.fromkeys(SUFFIXES)):
        bare = folder / "originals" / f"{number}{suffix}"
        encode(bare, *CODECS[suffix], seconds=seconds)
        for variant, (genres, custom_tags) in enumerate(VARIANTS):
            target = folder / "originals" / f"{number}-{variant}{suffix}"
            copy_with_genres(bare, target, genres, custom_tags=custom_tags)
            originals.append(target)
    by_suffix = {suffix: [it for it in originals if it.suffix == suffix] for suffix in SUFFIXES}
    kinds = cycle(SUFFIXES)
    for number in range(files):
        album = folder / "music" / f"artist {number // 120:05d}" / f"album {number // FILES_PER_ALBUM:05d}"
        if number % FILES_PER_ALBUM == 0:
            album.mkdir(parents=True)
        variants = by_suffix[next(kinds)]
        source = variants[2] if number % 7 == 0 else variants[number % 3 == 0]
        shutil.copyfile(source, album / f"{number:07d} track{source.suffix}")


def make_model(models: Path) -> None:
    """Publish the default network with fresh weights, and put it into service."""
    training = TrainSettings(model=ModelSettings())
    identity = ModelIdentity(genres=GENRES, mel=MelSettings(), training=training)
    network = build_model(training.model, len(GENRES), identity.mel.bands)
    files = {WEIGHTS_FILE: safetensors.torch.save(network.state_dict())}
    promote(str(models), publish_version(str(models), files, identity.model_dump(mode="json")))


def sample_hashes(music: Path) -> dict[str, str]:
    """Hash the audio of every 97th file."""
    files = sorted(str(path) for path in music.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: audio_hash(path) for path in files[::97]}


def tag_and_kill(folder: Path, files: int) -> None:
    """Tag in place, killed once half way; tell seconds, memory and the journal."""
    command = [
        COMMAND, "tag", str(folder / "music"), "--write", f"--models={folder}/models", f"--runs={folder}/runs",
        "--windows.count=1", "--windows.length-s=4",
    ]  # fmt: skip
    half = files // 64 // 2
    begun = time.monotonic()
    first = watch(command, folder, until=lambda: parts(folder, "plan") >= half)
    known = parts(folder, "plan")
    first_s = time.monotonic() - begun
    begun = time.monotonic()
    stamp = time.time()
    regained = []

    def has_regained() -> bool:
        if not regained and parts(folder, "plan", newer_than=stamp) >= known:
            regained.append(time.monotonic() - begun)
        return False

    second = watch(command, folder, until=has_regained)
    second_s = time.monotonic() - begun
    total_s = first_s + second_s
    print(
        f"{files:,} files: killed after {first_s:.0f} s, went on for {second_s:.0f} s; {files / total_s:.0f} files/s"
    )
    print(
        f"what was known before the kill was gone over in {regained[0]:.0f} s: {regained[0] / total_s:.1%} of the run"
    )
    for name, seen in (("before the kill", first), ("after it", second)):
        quarters = [seen[len(seen) * quarter // 4] for quarter in range(4)] + [seen[-1]]
        print(f"memory of the flow's process {name}, MiB: " + ", ".join(f"{it >> 20}" for it in quarters))
    journal = list(folder.glob("runs/*/journal/*.parquet"))
    rows = sum(pq.ParquetFile(path).metadata.num_rows for path in journal)
    size = sum(path.stat().st_size for path in journal)
    print(f"journal: {rows:,} files in {len(journal):,} parts, {size / rows:.0f} bytes a file")
    ended = [json.loads(path.read_text()) for path in folder.glob("runs/*/summary.json")]
    print("ended:", ended[-1]["statuses"])


def parts(folder: Path, kind: str, *, newer_than: float = 0.0) -> int:
    """Count the parts of all runs."""
    whole = (path for path in folder.glob(f"runs/*/{kind}/*.parquet") if not path.name.startswith("."))
    return sum(path.stat().st_mtime >= newer_than for path in whole)


def watch(command: list[str], folder: Path, until: Callable[[], bool]) -> list[int]:
    """Run a command until it ends, or is killed because `until` says so; give the memory of its process, in bytes."""
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    seen = []
    while process.poll() is None:
        try:
            seen.append(psutil.Process(process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if until():
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(LOOK_EVERY_S)
    status = process.wait()
    assert status in (0, -signal.SIGKILL), f"it ended with {status}"
    return [it for it in seen if it]


def undo(folder: Path) -> None:
    """Undo it all."""
    begun = time.monotonic()
    watch([COMMAND, "undo", "latest", f"--runs={folder}/runs"], folder, until=lambda: False)
    name = max(path.parent.name for path in folder.glob("runs/*/summary.json"))
    ended = json.loads((folder / "runs" / name / "summary.json").read_text())
    print(f"undone in {time.monotonic() - begun:.0f} s:", ended["statuses"])


if __name__ == "__main__":
    main()
