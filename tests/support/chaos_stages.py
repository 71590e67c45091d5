"""The three stages that a chaos suite disturbs, each with what it must not lose: build, train and tag on demo music."""

import csv
import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec

from flows.commands.store_upkeep import verify_store
from preprocessing.decode.waveform import decode
from store.dataset.snapshots import snapshot_numbers
from store.fs.files import join, read_bytes
from store.model_registry import champion, list_versions, read_card
from store.reader import open_snapshot
from tests.support.audio_formats import CODECS, encode
from tests.support.audio_hash import audio_hash
from tests.support.tagging_model import copy_demo_music, publish_small_model
from training.inference.model_version import load_model, read_identity

DEMO = Path("tests/data/demo_music")
FIRST_BROKEN = 200049
BUILD_TRACKS = tuple(str(200001 + 3 * number) for number in range(16))  # of all three genres
ALREADY_BUILT = BUILD_TRACKS[:4]
COARSE = ("--spectrogram.mel.hop=1024", "--spectrogram.mel.bands=32")
QUICK = {
    "model.name": "shallow",
    "model.width": 8,
    "epochs": 2,
    "crop-s": 2.0,
    "crops-per-track": 2,
    "batch-size": 16,
    "micro-batch-size": 8,
    "validation-crops": 1,
    "checkpoint-steps": 2,
    "stall-timeout-s": 20,
}
TAGGED_SONGS = {f"album/{number}.mp3": str(200033 + number) for number in range(4)}
Run = Callable[..., None]  # a command, to its end


class Damaged(AssertionError):
    """An artefact that a fault lost or damaged."""


class Stage(ABC):
    """A command, what it is started on, and what must hold after a fault and after a rerun."""

    name: str
    weight: int  # how many of some faults are on this stage

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = folder / f"{self.name}-start"  # is copied for each fault

    @abstractmethod
    def prepare(self, run: Run) -> None:
        """Make what every fault starts from, and what an undisturbed run makes of it."""

    @abstractmethod
    def command(self, root: str) -> list[str]:
        """Return the command whose artefacts are in `root`, a folder or a URL."""

    @abstractmethod
    def check_whole(self, root: str) -> None:
        """Check what must hold at any moment. Raises: Damaged."""

    @abstractmethod
    def check_complete(self, root: str) -> None:
        """Check what must hold after the command. Raises: Damaged."""


class UndoableStage(Stage):
    """A stage that another command takes back."""

    @abstractmethod
    def undo_command(self, root: str) -> list[str]:
        """Return the command that takes back what the stage did."""

    @abstractmethod
    def check_undone(self, root: str) -> None:
        """Check what must hold after that. Raises: Damaged."""


class BuildStage(Stage):
    """A store that has four tracks, while twelve others are built in six commits."""

    name, weight = "build", 4

    def prepare(self, run: Run) -> None:
        self.music = self.folder / "build-music"
        copy_fma(self.music, ALREADY_BUILT)
        run(self.command(str(self.start)))
        copy_fma(self.music, BUILD_TRACKS)
        run(self.command(str(self.folder / "build-whole")))
        self.mels = hash_spectrograms(join(str(self.folder / "build-whole"), "store"))
        check(set(self.mels) == set(BUILD_TRACKS), f"built {sorted(self.mels)}")

    def command(self, root: str) -> list[str]:
        batches = ["--tracks-per-batch=1", "--batches-per-commit=2", "--catalogue.split.mode=none"]
        return ["build", str(self.music), f"--store={join(root, 'store')}", *COARSE, *batches]

    def check_whole(self, root: str) -> None:
        store = join(root, "store")
        check(bool(snapshot_numbers(store)), "no snapshot is left")
        for number in snapshot_numbers(store):
            list(verify_store(store, str(number), threads=2))
        found = hash_spectrograms(store)
        lost = set(ALREADY_BUILT) - set(found)
        check(not lost, f"lost tracks: {lost}")
        check(found.items() <= self.mels.items(), "spectrograms differ from those of an undisturbed build")

    def check_complete(self, root: str) -> None:
        self.check_whole(root)
        check(hash_spectrograms(join(root, "store")) == self.mels, "tracks are missing after the rerun")


class TrainStage(Stage):
    """A champion in service, while another model is trained that takes its place."""

    name, weight = "train", 3

    def prepare(self, run: Run) -> None:
        music = self.folder / "train-music"
        copy_fma(music, [path.stem for path in sorted(DEMO.rglob("*.mp3")) if int(path.stem) < FIRST_BROKEN])
        self.store = self.folder / "train-store"
        run(["build", str(music), f"--store={self.store}", *COARSE])
        run([*self.command(str(self.start)), "--training.seed=1"])
        self.before = champion(join(str(self.start), "models"))
        shutil.copytree(self.start, self.folder / "train-whole")
        run(self.command(str(self.folder / "train-whole")))
        whole = join(str(self.folder / "train-whole"), "models")
        self.weights = {read_weights(whole, version) for version in list_versions(whole)}
        self.new_weights = read_weights(whole, champion(whole) or "")
        check(len(self.weights) == 2, "the two models are equal")

    def command(self, root: str) -> list[str]:
        training = [f"--training.{name}={value}" for name, value in QUICK.items()]
        hosts = ["--hosts.processes-per-host=1", "--hosts.wait-s=60"]
        return ["train", f"--store={self.store}", f"--models={join(root, 'models')}", *training, *hosts]

    def check_whole(self, root: str) -> None:
        models = join(root, "models")
        versions = list_versions(models)
        check(self.before in versions, "the old champion is lost")
        check(champion(models) in versions, f"the champion {champion(models)} is no version")
        for version in versions:
            url = join(models, version)
            read_card(url)
            load_model(url, read_identity(url))
            check(bool(read_bytes(join(url, "report", "report.html"))), f"{url}: no report")
            check(
                read_weights(models, version) in self.weights, f"{url}: not the weights of an undisturbed run"
            )

    def check_complete(self, root: str) -> None:
        self.check_whole(root)
        models = join(root, "models")
        check(champion(models) != self.before, "the new model is not in service")
        new = read_weights(models, champion(models) or "")
        check(new == self.new_weights, "the new model differs from that of an undisturbed run")


class TagStage(UndoableStage):
    """Music in ten formats whose genres are replaced in the files themselves, and the journal that restores them."""

    name, weight = "tag", 4

    def prepare(self, run: Run) -> None:
        self.models = self.folder / "tag-models"
        publish_small_model(str(self.models))
        music = self.start / "music"
        copy_demo_music(music, TAGGED_SONGS)
        for suffix, (codec, rate, container) in CODECS.items():
            encode(music / f"music{suffix}", codec, rate, container, seconds=3.0)
        self.old = read_files(join(str(self.start), "music"))
        whole = self.folder / "tag-whole"
        shutil.copytree(self.start, whole)
        run(self.command(str(whole)))
        self.new = read_files(join(str(whole), "music"))
        check(self.old.keys() == self.new.keys(), "an undisturbed run adds or removes files")
        for name in self.old:
            check(self.old[name] != self.new[name], f"{name}: not tagged by an undisturbed run")
            check(decode_hash(music / name) == decode_hash(whole / "music" / name), f"{name}: other samples")
            check(audio_hash(music / name) == audio_hash(whole / "music" / name), f"{name}: other audio")

    def command(self, root: str) -> list[str]:
        where = [join(root, "music"), f"--models={self.models}", f"--runs={join(root, 'runs')}"]
        windows = ["--windows.count=1", "--windows.length-s=2"]
        return ["tag", *where, "--write", "--policy=replace", "--files-per-batch=2", *windows]

    def undo_command(self, root: str) -> list[str]:
        return ["undo", "latest", f"--runs={join(root, 'runs')}"]

    def check_whole(self, root: str) -> None:
        found = read_files(join(root, "music"))
        lost = self.old.keys() - found.keys()
        check(not lost, f"lost files: {lost}")
        for name in self.old:
            check(found[name] in (self.old[name], self.new[name]), f"{name}: neither old nor new")

    def check_complete(self, root: str) -> None:
        found = read_files(join(root, "music"))
        check(found == self.new, f"not as after an undisturbed run: {differing(found, self.new)}")

    def check_undone(self, root: str) -> None:
        found = read_files(join(root, "music"))
        check(found == self.old, f"not as before: {differing(found, self.old)}")


def check(holds: bool, problem: str) -> None:
    """Raise Damaged unless a condition holds."""
    if not holds:
        raise Damaged(problem)


def differing(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """Name the files that differ, are missing or should not be there."""
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def copy_fma(folder: Path, track_ids: Sequence[str]) -> None:
    """Write FMA's tables of these tracks, and their files."""
    shutil.copytree(DEMO / "fma_metadata", folder / "fma_metadata", dirs_exist_ok=True)
    with (DEMO / "fma_metadata/tracks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with (folder / "fma_metadata/tracks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows[:3] + [row for row in rows[3:] if row[0] in track_ids])
    for track_id in track_ids:
        path = folder / f"fma_small/{track_id[:3]}/{track_id}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shutil.copy2(DEMO / path.relative_to(folder), path)


def hash_spectrograms(store: str) -> dict[str, str]:
    """Hash the spectrogram of each track of the latest snapshot."""
    snapshot = open_snapshot(store)
    return {it: hashlib.sha256(snapshot.mel(it).tobytes()).hexdigest() for it in snapshot.track_ids}


def read_weights(models: str, version: str) -> str:
    """Hash the weights of a version."""
    return hashlib.sha256(read_bytes(join(models, version, "weights.safetensors"))).hexdigest()


def read_files(url: str) -> dict[str, bytes]:
    """Read all files below a folder or a URL, hidden ones too."""
    fs, root = fsspec.url_to_fs(url)
    fs.invalidate_cache()
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}


def decode_hash(path: Path) -> str:
    """Hash the samples of a file."""
    return hashlib.sha256(decode(str(path), sample_rate_hz=22_050).tobytes()).hexdigest()
