"""What becomes of broken files: mutated real music by the thousand, and folders of files made to break readers.

    python -m tests.benchmarks.hostile [--mutations 2000] [--seed 0] [--folder ../shared/data/hostile]

Every file must end as ok, ok-truncated or a reject with a reason, whatever happens to its decoder.
"""

import argparse
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from preprocessing.decode.sandbox import Sandbox
from preprocessing.decode.settings import ExcerptSettings, LimitSettings
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from tests.support.damaged_files import mutations, real_files

FOLDER = Path("../shared/data/hostile")


def outcome(sandbox: Sandbox, path: Path) -> str:
    """Build one file's spectrogram and read it; say how it ended."""
    try:
        spooled, pieces = sandbox.decode_mel(path, MelSettings(), ExcerptSettings())
        assert sum(map(len, pieces)) == spooled.frames
    except BadAudio as why:
        return why.reason
    return "ok-truncated" if spooled.is_truncated else "ok"


def tell(title: str, counts: dict[str, Counter[str]], seconds: float) -> None:
    """Print a table: a row a group, a column an outcome."""
    outcomes = sorted({it for row in counts.values() for it in row})
    total = sum(row.total() for row in counts.values())
    print(f"\n{title}: {total:,} files in {seconds:.0f} s")
    print(f"{'':14}" + "".join(f"{it:>23}" for it in outcomes))
    for name, row in sorted(counts.items()):
        print(f"{name:14}" + "".join(f"{row[it]:23,}" for it in outcomes))


def mutate(sandbox: Sandbox, count: int, seed: int) -> None:
    """Damage real music in every format."""
    by_kind: defaultdict[str, Counter[str]] = defaultdict(Counter)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        files = real_files(Path(name))
        for kind, path, data in mutations(files, count, seed):
            damaged = path.with_stem("damaged")
            damaged.write_bytes(data)
            by_kind[kind][outcome(sandbox, damaged)] += 1
    tell(
        f"mutations of the demo music in {len(files)} formats, seed {seed}", by_kind, time.monotonic() - begun
    )


def read_folder(sandbox: Sandbox, folder: Path) -> None:
    """Read every file below a folder, whatever its name."""
    by_folder: defaultdict[str, Counter[str]] = defaultdict(Counter)
    named: defaultdict[str, list[str]] = defaultdict(list)
    begun = time.monotonic()
    for path in sorted(it for it in folder.rglob("*") if it.is_file()):
        ended = outcome(sandbox, path)
        by_folder[path.relative_to(folder).parts[0]][ended] += 1
        named[ended].append(str(path.relative_to(folder)))
    tell(f"{folder}", by_folder, time.monotonic() - begun)
    for ended, names in sorted(named.items()):
        print(f"{ended}: {', '.join(names)}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    sandbox = Sandbox(LimitSettings(timeout_s=20.0))
    mutate(sandbox, arguments.mutations, arguments.seed)
    if arguments.folder.exists():
        read_folder(sandbox, arguments.folder)


if __name__ == "__main__":
    main()
