"""Build, train, evaluate and tag the bundled music. Rerun it: finished steps are not repeated."""

import shutil
from pathlib import Path

import pyarrow.compute as pc

from flows.recording import recorded, run_flow
from flows.reporting.build_report import BuildSummary
from flows.reporting.progress import print_status
from flows.reporting.tagging_summary import TagSummary
from flows.settings import BuildSettings, DemoSettings, TagSettings, TrainModelSettings
from flows.train_model import TrainSummary
from store.fs.files import replacing
from store.reader import open_snapshot
from training.fit.settings import TrainSettings
from training.networks.settings import ModelSettings

DEMO_MUSIC = Path(__file__).parent.parent / "tests" / "data" / "demo_music"
TRACKS_PER_BATCH = 8  # six tasks, enough for two workers


def run_demo(settings: DemoSettings) -> list[str]:
    """Build, train and tag; return the lines of the summary."""
    with recorded():
        return _run(settings)


def _run(settings: DemoSettings) -> list[str]:
    folder = Path(settings.folder).absolute()
    print_status("1 of 3  decoding 51 bundled files and storing their spectrograms")
    built = run_flow(
        "build_dataset",
        BuildSettings(source=str(DEMO_MUSIC), store=f"{folder}/store", tracks_per_batch=TRACKS_PER_BATCH),
    )
    print_status("2 of 3  training a network on two processes, then evaluating it on held-out tracks")
    trained = run_flow(
        "train_model",
        TrainModelSettings(
            store=f"{folder}/store",
            models=f"{folder}/models",
            training=TrainSettings(seed=settings.seed, model=ModelSettings(name="short-chunk-resnet")),
        ),
    )
    print_status("3 of 3  tagging copies of the test tracks")
    tagged = run_flow(
        "tag_catalogue",
        TagSettings(
            source=str(_copy_test_tracks(folder)),
            copy_to=f"{folder}/tagged",
            models=f"{folder}/models",
            model=trained.version,
            runs=f"{folder}/tagging",
        ),
    )
    return _summary(built, trained, tagged, folder)


def _copy_test_tracks(folder: Path) -> Path:
    """Copy the test tracks into a folder, as a collection of files without genres."""
    tracks = open_snapshot(f"{folder}/store").tracks
    collection = folder / "untagged"
    collection.mkdir(parents=True, exist_ok=True)
    for url in tracks.filter(pc.equal(tracks["split"], "test"))["url"].to_pylist():
        if not (collection / Path(url).name).exists():
            with replacing(collection / Path(url).name) as draft:
                shutil.copyfile(url, draft)
    return collection


def _summary(built: BuildSummary, trained: TrainSummary, tagged: TagSummary, folder: Path) -> list[str]:
    copied = tagged.statuses.get("copied", 0)
    return [
        "",
        *built.lines(),
        *trained.lines(),
        f"tagged: {copied} files in {folder}/tagged ({_counts(tagged.genres)})",
        "",
        "What to try next:",
        f"  open {trained.report}",
        f"  open {tagged.page}",
        f"  spectrogram-one tag YOUR_MUSIC --models {folder}/models     a dry run: nothing is written",
        "  spectrogram-one build YOUR_FMA_FOLDER     then `spectrogram-one train`",
        "  spectrogram-one serve     the same flows in the Prefect UI",
    ]


def _counts(genres: dict[str, int]) -> str:
    return ", ".join(f"{count} {genre}" for genre, count in genres.items())
