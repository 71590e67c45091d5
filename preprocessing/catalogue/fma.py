"""The Free Music Archive's dataset, as published: metadata, audio and checksums.

Each part is read from its folder, or from the published archive without unpacking it.
"""

import csv
import io
import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from preprocessing.catalogue.audio_files import NO_RULES, find_audio
from preprocessing.catalogue.file_rules import FileRules
from preprocessing.catalogue.fma_genres import Genre, parent_ids, parents_by_title, read_genre_tree
from preprocessing.catalogue.source_counts import SourceCounts
from preprocessing.catalogue.splits import SPLITS
from store.dataset.genre_tree import with_ancestors
from store.errors import BadInput
from store.fs.files import exists, list_names, open_for_reading, read_bytes
from store.fs.listing import child_url, child_urls

SUBSETS = ("small", "medium", "large", "full")  # each is part of the next
FMA_COLUMN_TYPES = {
    "track_id": pa.int64(),
    "track.title": pa.string(),
    "track.duration": pa.float64(),
    "track.genre_top": pa.string(),
    "track.genres_all": pa.string(),
    "album.title": pa.string(),
    "artist.name": pa.string(),
    "set.split": pa.string(),
    "set.subset": pa.string(),
}
CATALOGUE_COLUMNS = {  # columns of a catalogue that are FMA's as they are
    "artist": "artist.name",
    "album": "album.title",
    "title": "track.title",
    "genre_top": "track.genre_top",
    "split": "set.split",
    "duration_s": "track.duration",
}
CHECKSUM_LINE = r"^[0-9a-fA-F]{40}  [^ ].*$"


def find_fma_metadata(source: str) -> str | None:
    """Return the folder of FMA's tracks.csv: fma_metadata, the source itself, or within fma_metadata.zip."""
    folders = [child_url(source, "fma_metadata"), source]
    if not source.startswith("zip://"):
        folders.append(f"zip://fma_metadata::{child_url(source, 'fma_metadata.zip')}")
    return next((folder for folder in folders if exists(child_url(folder, "tracks.csv"))), None)


def read_fma(
    source: str,
    metadata: str | None,
    subset: str | None,
    *,
    checksums: bool,
    rules: FileRules = NO_RULES,
    counts: SourceCounts | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read FMA's tracks, in order of their ids, as columns of a catalogue; and the parents of its genres.

    Raises: BadInput if metadata or audio is not there, or cannot be used.

    A track whose file is missing is listed without a size.
    """
    if metadata is None:
        raise _no_metadata(source)
    tracks_url, genres_url = child_url(metadata, "tracks.csv"), child_url(metadata, "genres.csv")
    name, folder = _choose_subset(source, subset)
    names = _read_header(tracks_url)  # reports a wrong table before a million files are listed
    counts = SourceCounts() if counts is None else counts
    audio = find_audio(folder, rules=rules, counts=counts)
    tracks = _of_subset(_read_tracks(tracks_url, names), name, tracks_url)
    tree = read_genre_tree(genres_url)
    paths = _paths(tracks["track_id"])
    files = _files_of_tracks(audio, paths, folder, tracks_url, counts)
    del audio  # of a million files, 50 MiB
    pa.default_memory_pool().release_unused()
    columns = {
        **{name: tracks[theirs] for name, theirs in CATALOGUE_COLUMNS.items()},
        "track_id": tracks["track_id"].cast(pa.string()),
        "url": child_urls(folder, paths),
        "size_bytes": files["size_bytes"],
        "signature": files["signature"],
        "genres": _genres(tracks, tree, tracks_url, genres_url),
        **({"sha1": _read_checksums(folder, paths)} if checksums else {}),
    }
    return columns, parents_by_title(tree)


def _no_metadata(source: str) -> BadInput:
    found = "no fma_metadata/tracks.csv and no tracks.csv" if exists(source) else "no such folder"
    return BadInput(
        f"{source}: {found}; wanted FMA's metadata; put fma_metadata.zip there or unpack it there, "
        "or set kind to folder-per-genre, flat or auto"
    )


# Audio and checksums


def _files_of_tracks(
    audio: pa.Table, paths: pa.ChunkedArray, folder: str, tracks_url: str, counts: SourceCounts
) -> pa.Table:
    """Return size and signature of each track's file, null if it is missing. Raises: BadInput if all are."""
    row_of_track = pc.index_in(paths, value_set=audio["path"].combine_chunks())
    if row_of_track.null_count == len(paths):
        raise BadInput(
            f"{folder}: none of the {len(paths)} tracks in {tracks_url} is there; wanted files like "
            f"{paths[0]}; check that metadata and audio belong together"
        )
    counts.missing += row_of_track.null_count
    counts.not_in_catalogue += len(audio) - (len(paths) - row_of_track.null_count)
    return audio.select(["size_bytes", "signature"]).take(row_of_track)


def _choose_subset(source: str, wanted: str | None) -> tuple[str, str]:
    """Return the FMA subset to read, the wanted one or else the largest there is, and its folder."""
    names = list_names(source)
    folder_of = {}
    for subset in SUBSETS:
        folder = f"fma_{subset}"
        if folder in names:
            folder_of[subset] = child_url(source, folder)
        elif f"{folder}.zip" in names and not source.startswith("zip://"):
            folder_of[subset] = f"zip://{folder}::{child_url(source, folder)}.zip"
    chosen = wanted or (list(folder_of)[-1] if folder_of else None)
    if chosen is None or chosen not in folder_of:
        raise BadInput(
            f"{source}: found {', '.join(f'fma_{each}' for each in folder_of) or 'no folder fma_*'}; "
            f"wanted {f'fma_{wanted}' if wanted else 'fma_small, fma_medium, fma_large or fma_full'}; "
            "put FMA's audio there, as the published .zip or unpacked"
            f"{', or choose a subset that is there' if folder_of else ''}"
        )
    return chosen, folder_of[chosen]


def _paths(track_ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the paths of tracks' files, like 000/000002.mp3."""
    names = pc.utf8_lpad(track_ids.cast(pa.string()), 6, padding="0")
    return pc.binary_join_element_wise(pc.utf8_slice_codeunits(names, 0, 3), "/", names, ".mp3", "")


def _read_checksums(folder: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read the SHA-1 that FMA publishes beside its audio for each path; null for a path it does not list."""
    url = child_url(folder, "checksums")
    try:
        text = read_bytes(url).decode()
    except FileNotFoundError:
        raise BadInput(
            f"{url}: no such file; wanted FMA's checksums; take it from the archive of the audio, "
            "or set verify_checksums to false"
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{url}: not a list of checksums ({_one_line(error)}); fetch it again") from error
    lines = pc.split_pattern(pa.array([text.rstrip("\n")]), "\n").flatten()
    wrong = pc.index(pc.match_substring_regex(lines, CHECKSUM_LINE), False).as_py()
    if wrong >= 0:
        raise BadInput(
            f"{url}: line {wrong + 1} is {lines[wrong].as_py()[:60]!r}; wanted 40 hex digits, two spaces "
            "and a path; take the file again from the archive of the audio"
        )
    rows = pc.index_in(paths, value_set=pc.utf8_slice_codeunits(lines, 42))
    return pc.utf8_lower(pc.utf8_slice_codeunits(lines, 0, 40)).take(rows)


# Metadata


def _of_subset(tracks: pa.Table, subset: str, tracks_url: str) -> pa.Table:
    """Return the tracks of a subset, in order of their ids. Raises: BadInput if there are none, or one twice."""
    subsets = tracks["set.subset"]
    unknown = pc.index(pc.is_in(subsets, value_set=pa.array(SUBSETS)), False).as_py()
    if unknown >= 0:
        raise BadInput(
            f"{tracks_url}: track {tracks['track_id'][unknown]} is in the subset {subsets[unknown].as_py()!r}; "
            f"wanted {', '.join(SUBSETS)}"
        )
    track_ids = tracks["track_id"].to_numpy()
    is_in_subset = pc.is_in(subsets, value_set=pa.array(SUBSETS[: SUBSETS.index(subset) + 1])).to_numpy()
    rows = np.flatnonzero(is_in_subset)
    rows = rows[np.argsort(track_ids[rows], kind="stable")]
    if not rows.size:
        raise BadInput(f"{tracks_url}: no track of the subset {subset}; choose another subset")
    track_ids = track_ids[rows]
    repeated = track_ids[1:][track_ids[1:] == track_ids[:-1]]
    if repeated.size:
        times = int(np.count_nonzero(track_ids == repeated[0]))
        raise BadInput(
            f"{tracks_url}: track {repeated[0]} is there {times} times; wanted once; remove the others"
        )
    is_all_in_order = np.array_equal(rows, np.arange(len(tracks)))  # true of the full subset: no copy then
    tracks = tracks.drop_columns("set.subset")
    return tracks if is_all_in_order else tracks.take(rows)


def _genres(tracks: pa.Table, tree: Mapping[int, Genre], tracks_url: str, genres_url: str) -> pa.ChunkedArray:
    """Return the titles of each track's genres; equal lists are looked up once."""
    texts = tracks["track.genres_all"]
    distinct = pc.drop_null(pc.unique(texts))
    titles, parents = [], parent_ids(tree)
    for text in distinct.to_pylist():
        where = f"{tracks_url}: track {tracks['track_id'][pc.index(texts, text).as_py()]}"
        titles.append(_titles(text, tree, parents, where, genres_url))
    return pa.array(titles, pa.list_(pa.string())).take(pc.index_in(texts, value_set=distinct))


def _titles(
    genres: str, tree: Mapping[int, Genre], parents: Mapping[int, int], where: str, genres_url: str
) -> list[str] | None:
    """Turn FMA's "[12, 85]" into the sorted titles of these genres and their ancestors."""
    try:
        genre_ids = [int(genre_id) for genre_id in json.loads(genres)]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{where} has genres_all {genres!r}; wanted a list like [12, 85]") from error
    unknown = [genre_id for genre_id in genre_ids if genre_id not in tree]
    if unknown:
        raise BadInput(
            f"{where} has genre {unknown[0]}, which {genres_url} does not list; "
            "take both tables from the same release of FMA"
        )
    return sorted({tree[genre_id].title for genre_id in with_ancestors(genre_ids, parents)}) or None


def _read_tracks(url: str, names: list[str]) -> pa.Table:
    """Read the FMA_COLUMN_TYPES of FMA's tracks.csv, blank text as null.

    Raises: BadInput if it is another kind of table.
    """
    try:
        with open_for_reading(url) as file:
            table = pyarrow.csv.read_csv(
                file,
                # A row must fit into a block, and some biographies are long. Threads take longer, and a gigabyte
                # more, as they read blocks ahead of their conversion.
                pyarrow.csv.ReadOptions(
                    column_names=names, skip_rows=3, block_size=1 << 23, use_threads=False
                ),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    include_columns=list(FMA_COLUMN_TYPES),
                    column_types=FMA_COLUMN_TYPES,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{url}: {_one_line(error)}; wanted FMA's tracks.csv, {len(names)} columns in each row; "
            "unpack it again from fma_metadata.zip"
        ) from error
    unnumbered = pc.index(pc.is_null(table["track_id"]), True).as_py()
    if unnumbered >= 0:
        raise BadInput(f"{url}: data row {unnumbered + 1} has no track_id")
    for number, field in enumerate(table.schema):
        if field.type == pa.string():
            table = table.set_column(number, field, _stripped(table[field.name]))
    unknown = {*pc.unique(table["set.split"]).to_pylist()} - {*SPLITS, None}
    if unknown:
        raise BadInput(f"{url}: found the split {min(unknown)!r}; wanted {', '.join(SPLITS)} or nothing")
    pa.default_memory_pool().release_unused()  # that the parsed blocks took
    return table


def _stripped(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _read_header(url: str) -> list[str]:
    """Join the three header rows of FMA's tracks.csv into names like "track.title"."""
    wanted = "FMA's tracks.csv, three header rows of which the third begins with track_id"
    try:
        with open_for_reading(url) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as file:
            header = list(islice(csv.reader(file), 3))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{url}: not a CSV file ({_one_line(error)}); wanted {wanted}") from error
    if len(header) < 3 or header[2][:1] != ["track_id"]:
        found = ",".join(header[0])[:60] if header else ""
        raise BadInput(
            f"{url}: the file begins with {found!r}; wanted {wanted}; unpack it again from fma_metadata.zip, "
            "or rename it and set kind to folder-per-genre or flat"
        )
    pairs = zip(
        header[0][1:], header[1][1:], strict=False
    )  # in a shorter row, columns are missing: see below
    names = ["track_id", *(f"{group}.{name}" for group, name in pairs)]
    missing = [name for name in FMA_COLUMN_TYPES if name not in names]
    if missing:
        raise BadInput(f"{url}: no column {', '.join(missing)}; wanted {wanted}")
    return names


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
