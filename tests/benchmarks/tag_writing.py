"""How fast tags are written and taken back, safely, beside what mutagen does without any safety.

    python -m tests.benchmarks.tag_writing [--files 1024] [--rounds 3] [--folder DIR]

Copies of the demo music, MP3s as they are and a mixture of ten formats of that size, in folders of
16. Ours: drafts, comparison, journal, fsync, rename, in batches of 64 on two processes; the files
are on disk when the clock stops. Mutagen: `File(path, easy=True).save()`, in place, on two processes,
and nothing is known to be on disk. WAV and AIFF have no easy view: it leaves their genre out.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mutagen

from store.fs.signatures import signature_from_stat
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.swap.journal import list_journalled_batches, read_journal
from tests.support.audio_formats import CODECS, encode

DEMO = Path("tests/data/demo_music/fma_small")
BATCH, FOLDER_FILES, PROCESSES = 64, 16, 2
BYTES = 190_000
GENRES = ["Electronic", "Old-Time / Historic"]


def demo_mp3s() -> list[Path]:
    return [path for path in sorted(DEMO.rglob("*.mp3")) if path.stat().st_size > 100_000]


def mixture(folder: Path) -> list[Path]:
    """Encode the demo music in each format, each file of about the same size."""
    paths = []
    for suffix, (codec, rate, container) in CODECS.items():
        path = folder / f"music{suffix}"
        encode(path, codec, rate, container, seconds=1.0)
        seconds = min(BYTES / path.stat().st_size, 20.0)
        encode(path, codec, rate, container, seconds=seconds)
        paths.append(path)
    return paths


def lay_out(originals: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Fill a folder with copies, and have them on disk."""
    shutil.rmtree(folder, ignore_errors=True)
    paths = []
    for number in range(count):
        source = originals[number % len(originals)]
        paths.append(folder / f"album {number // FOLDER_FILES:05}/{number:06}{source.suffix}")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, paths[-1])
    os.sync()
    return paths


def tag_ours(paths: Sequence[Path], journal_url: str) -> None:
    rows = [
        {
            "track_id": str(path),
            "url": str(path),
            "signature": signature_from_stat(path.stat()),
            "genres": GENRES,
            "custom_tags": {},
        }
        for path in paths
    ]
    done = apply_batch(rows, settings=WriteSettings(), journal_url=journal_url, name=paths[0].stem)
    assert {row["status"] for row in done} == {"written"}


def undo_ours(name: str, journal_url: str) -> None:
    done = undo_batch(
        read_journal(journal_url, name),
        settings=WriteSettings(),
        journal_url=f"{journal_url}-undo",
        name=name,
        even_changed=False,
        dry_run=False,
    )
    assert {row["status"] for row in done} == {"restored"}


def tag_in_place(paths: Sequence[Path], _: str) -> None:
    for path in paths:
        audio = mutagen.File(path, easy=True)
        if path.suffix not in (".wav", ".aiff", ".aac"):
            audio["genre"] = GENRES
        audio.save()


def rate(
    pool: ProcessPoolExecutor, call: Callable[[object, str], None], batches: Sequence[object], journal: str
) -> float:
    """Return the number of batches a second."""
    begun = time.perf_counter()
    list(pool.map(call, batches, [journal] * len(batches)))
    return len(batches) / (time.perf_counter() - begun)


def measure(title: str, originals: Sequence[Path], folder: Path, count: int, rounds: int) -> None:
    context = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {"ours": [], "undo": [], "mutagen, in place": []}
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        warm = lay_out(originals, BATCH * PROCESSES, folder / "music")
        list(pool.map(tag_ours, [warm[:BATCH], warm[BATCH:]], [str(folder / "warm")] * 2))
        for number in range(rounds):
            journal = str(folder / f"journal of {title} {number}")
            paths = lay_out(originals, count, folder / "music")
            batches = [paths[start : start + BATCH] for start in range(0, count, BATCH)]
            rates["ours"].append(BATCH * rate(pool, tag_ours, batches, journal))
            sizes = [path.stat().st_size for path in Path(journal).iterdir()]
            rates["undo"].append(BATCH * rate(pool, undo_ours, list_journalled_batches(journal), journal))
            lay_out(originals, count, folder / "music")
            rates["mutagen, in place"].append(BATCH * rate(pool, tag_in_place, batches, ""))
    print(f"{title}: {count} files of {sum(map(os.path.getsize, originals)) // len(originals):,} bytes, mean")
    for name, values in rates.items():
        print(
            f"  {name:20}{statistics.median(values):8.0f} files/s  ({min(values):.0f} to {max(values):.0f})"
        )
    ratios = [one / other for one, other in zip(rates["ours"], rates["mutagen, in place"], strict=True)]
    print(f"  ours / mutagen {statistics.median(ratios):.2f}, journal {sum(sizes) / count:.0f} bytes a file")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", help="on the disk to be measured; default: the folder for temporary files"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        measure("MP3", demo_mp3s(), folder, asked.files, asked.rounds)
        (folder / "mixture").mkdir()
        measure("mixed formats", mixture(folder / "mixture"), folder, asked.files, asked.rounds)


if __name__ == "__main__":
    main()
