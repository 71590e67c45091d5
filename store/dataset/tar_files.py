"""A snapshot as tar files that WebDataset and other loaders read, and back into a store.

    FOLDER/SPLIT-000000.tar      for each track KEY.npy (frames x mel bands, as stored) and KEY.json (its labels)
    FOLDER/catalogue.parquet     all tracks, with labels and splits, those without a spectrogram too
    FOLDER/index.parquet         the result of each track
    FOLDER/dataset.json          recipe, units, names of the tar files; written last

KEY is the row of the track in the catalogue, since WebDataset ends a key at the first dot, and names have dots.
"""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store.dataset.reader import Snapshot
from store.dataset.recipe import Recipe
from store.dataset.shards import UINT8_MIN_DB, UINT8_STEP_DB, Shard, decode_db, encode_db, write_shard
from store.dataset.snapshots import INDEX_SCHEMA, SnapshotFile, latest_snapshot, publish, put_catalogue
from store.errors import BadInput
from store.fs.files import (
    exists,
    file_system,
    join,
    local_path,
    make_folder,
    open_for_reading,
    read_bytes,
    replacing,
    translate_server_errors,
    write_atomic,
)
from store.fs.parquet import read_table, write_table

FORMAT = 1
DATASET, CATALOGUE_FILE, INDEX_FILE = "dataset.json", "catalogue.parquet", "index.parquet"
TRACKS_PER_SHARD = 64
SAMPLE_COLUMNS = ("status", "decoded_s")  # of the index, in KEY.json; of the catalogue, all
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Export:
    """What an export wrote."""

    tars: dict[str, int]  # tracks in each

    @property
    def tracks(self) -> int:
        """The number of spectrograms."""
        return sum(self.tars.values())


def export_tars(
    snapshot: Snapshot, folder: str, *, tar_bytes: int, seed: int, advance: Advance = lambda tracks: None
) -> Export:
    """Write the tracks of a snapshot as tar files of about `tar_bytes`, by split, each in random order.

    Raises: BadInput if the folder has an export already.
    """
    if exists(join(folder, DATASET)):
        raise BadInput(f"{folder}: holds an export already; name another folder")
    catalogue = snapshot.catalogue
    index = snapshot.read_index(catalogue["track_id"], INDEX_SCHEMA.names[1:]).add_column(
        0, "track_id", catalogue["track_id"]
    )
    tars: dict[str, int] = {}
    for split, rows in _rows_by_split(catalogue, index, seed):
        samples = _samples(snapshot, catalogue, index, rows)
        for number, some in enumerate(_split_by_size(samples, tar_bytes)):
            name = f"{split}-{number:06d}.tar"
            tars[name] = _write_tar(join(folder, name), some, advance)
    write_table(join(folder, CATALOGUE_FILE), catalogue)
    write_table(join(folder, INDEX_FILE), index)
    head = {
        "format": FORMAT,
        "recipe": asdict(snapshot.file.recipe),
        "units": "dB",
        "scale_factor": UINT8_STEP_DB if snapshot.encoding == "uint8" else 1.0,
        "add_offset": UINT8_MIN_DB if snapshot.encoding == "uint8" else 0.0,
        "settings": snapshot.file.settings,
        "tars": tars,
    }
    write_atomic(join(folder, DATASET), json.dumps(head, indent=1).encode())
    return Export(tars)


def import_tars(folder: str, root: str, *, advance: Advance = lambda tracks: None) -> SnapshotFile:
    """Publish what `export_tars` wrote as the first snapshot of a new store.

    Raises: BadInput if the store has a snapshot, or the export is incomplete or damaged; nothing is then published.
    """
    if latest_snapshot(root) is not None:
        raise BadInput(f"{root}: holds a snapshot already; import into a new store (--store)")
    head = _read_head(folder)
    recipe = Recipe(**head["recipe"])
    index = read_table(join(folder, INDEX_FILE))
    spectrograms = _spectrograms(folder, head["tars"], recipe, advance)
    shards = list(_write_shards(root, spectrograms, recipe))
    catalogue = read_table(join(folder, CATALOGUE_FILE))
    return publish(
        root,
        parent=None,
        shards=shards,
        index=_with_locations(index, shards, folder),
        catalogue=put_catalogue(root, catalogue),
        recipe=recipe,
        settings=head["settings"],
        kind="import",
    )


Sample = tuple[str, bytes, bytes]  # key, content of KEY.npy, content of KEY.json


def _rows_by_split(
    catalogue: pa.Table, index: pa.Table, seed: int
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each split and the rows of its tracks that have a spectrogram, in random order."""
    has_mel = index["shard"].is_valid().to_numpy()
    split = catalogue["split"] if "split" in catalogue.column_names else pa.nulls(len(catalogue), pa.string())
    names = np.array([name or "unassigned" for name in split.to_pylist()], dtype=np.str_)
    random = np.random.default_rng(seed)
    for name in np.unique(names[has_mel]).tolist():
        yield name, random.permutation(np.flatnonzero(has_mel & (names == name)))


def _samples(
    snapshot: Snapshot, catalogue: pa.Table, index: pa.Table, rows: NDArray[np.int64]
) -> Iterator[Sample]:
    labels = catalogue
    for name in SAMPLE_COLUMNS:
        labels = labels.append_column(name, index[name])
    for row in rows.tolist():
        content = labels.slice(row, 1).to_pylist()[0]
        npy = io.BytesIO()
        np.save(npy, encode_db(snapshot.mel(content["track_id"]), snapshot.encoding), allow_pickle=False)
        content["crc32c"] = google_crc32c.value(npy.getvalue())
        yield f"{row:09d}", npy.getvalue(), json.dumps(content).encode()


def _split_by_size(samples: Iterator[Sample], tar_bytes: int) -> Iterator[Iterator[Sample]]:
    """Yield iterators over samples of about `tar_bytes` in all; each must be used up before the next."""
    following = next(samples, None)

    def some(first: Sample) -> Iterator[Sample]:
        nonlocal following
        size_bytes, sample = 0, first
        while True:
            yield sample
            size_bytes += len(sample[1]) + len(sample[2])
            following = next(samples, None)
            if following is None or size_bytes >= tar_bytes:
                return
            sample = following

    while following is not None:
        yield some(following)


def _write_tar(url: str, samples: Iterator[Sample], advance: Advance) -> int:
    count = 0
    with _whole_file(url) as path, tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, npy, labels in samples:
            for suffix, content in (("npy", npy), ("json", labels)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            count += 1
            advance(1)
    return count


@contextmanager
def _whole_file(url: str) -> Iterator[Path]:
    """Yield the path of a file to write, which becomes `url` when the block ends without an error."""
    path = local_path(url)
    if path is not None:
        make_folder(path.parent)
        with replacing(path) as draft:
            yield draft
        return
    fs, remote = file_system(url)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "content"
        with translate_server_errors(url):
            fs.put_file(str(Path(folder) / "content"), remote)


def _read_head(folder: str) -> dict[str, Any]:
    try:
        head: dict[str, Any] = json.loads(read_bytes(join(folder, DATASET)))
        version = head["format"]
    except FileNotFoundError:
        raise BadInput(
            f"{folder}: no {DATASET} there, which an export writes last; name the folder of a finished export"
        ) from None
    except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as why:
        raise BadInput(f"{folder}/{DATASET}: not of an export ({why}); export again") from None
    if version != FORMAT:
        raise BadInput(f"{folder}: an export of format {version}; this program reads format {FORMAT}")
    return head


def _spectrograms(
    folder: str, tars: Mapping[str, int], recipe: Recipe, advance: Advance
) -> Iterator[tuple[str, list[NDArray[np.float32]]]]:
    """Yield track_id and spectrogram of each sample, in dB. Raises: BadInput if one is damaged or missing."""
    for name, tracks in tars.items():
        url, found = join(folder, name), 0
        for npy, labels in _read_tar(url):
            yield labels["track_id"], [decode_db(_read_array(url, npy, labels, recipe))]
            found += 1
            advance(1)
        if found != tracks:
            raise BadInput(f"{url}: {found:,} tracks, {tracks:,} were exported; copy the file again")


def _read_tar(url: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    contents: dict[str, bytes] = {}
    try:
        with open_for_reading(url) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                opened = tar.extractfile(member)
                if opened is None or suffix not in ("npy", "json"):
                    continue
                contents[member.name] = opened.read()
                if contents.keys() >= {f"{key}.npy", f"{key}.json"}:
                    yield contents.pop(f"{key}.npy"), json.loads(contents.pop(f"{key}.json"))
    except FileNotFoundError:
        raise BadInput(f"{url}: missing; copy the export again") from None
    except (tarfile.TarError, EOFError, json.JSONDecodeError, UnicodeDecodeError) as why:
        raise BadInput(f"{url}: this tar file is damaged ({why}); copy it again") from None


def _read_array(url: str, npy: bytes, labels: Mapping[str, Any], recipe: Recipe) -> NDArray[Any]:
    if google_crc32c.value(npy) != labels.get("crc32c"):
        raise BadInput(
            f"{url}: the spectrogram of track {labels.get('track_id')} is damaged; copy the file again"
        )
    stored_FM: NDArray[Any] = np.load(io.BytesIO(npy), allow_pickle=False)
    bands = recipe.mel_settings["bands"]
    if stored_FM.dtype != recipe.encoding or stored_FM.ndim != 2 or stored_FM.shape[1] != bands:
        raise BadInput(
            f"{url}: track {labels['track_id']} is {stored_FM.dtype} of shape {stored_FM.shape}; "
            f"{DATASET} states {recipe.encoding} and {bands} bands"
        )
    return stored_FM


def _write_shards(
    root: str, spectrograms: Iterator[tuple[str, list[NDArray[np.float32]]]], recipe: Recipe
) -> Iterator[Shard]:
    for first in spectrograms:
        yield write_shard(
            root,
            chain([first], islice(spectrograms, TRACKS_PER_SHARD - 1)),
            bands=recipe.mel_settings["bands"],
            encoding=recipe.encoding,
            attributes={"mel": recipe.mel_settings, "mel_fingerprint": recipe.mel_fingerprint},
        )


def _with_locations(index: pa.Table, shards: Sequence[Shard], folder: str) -> pa.Table:
    """Return the exported index with the new locations. Raises: BadInput if a track came in no tar file."""
    location = {
        track_id: (shard.name, start, shard.frames[track_id])
        for shard in shards
        for track_id, start in shard.starts.items()
    }
    rows = index.to_pylist()
    for row in rows:
        if row["shard"] is not None:
            if row["track_id"] not in location:
                raise BadInput(f"{folder}: no tar file has track {row['track_id']}; copy the export again")
            row["shard"], row["start_frame"], row["frames"] = location[row["track_id"]]
    return pa.Table.from_pylist([row for row in rows if row["status"] is not None], schema=INDEX_SCHEMA)
