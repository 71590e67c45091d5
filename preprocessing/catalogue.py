"""The table of tracks, from FMA's metadata, a folder per genre or any folder of audio."""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
from pydantic import BaseModel, ConfigDict, Field

from preprocessing.splits import SPLITS, SplitSettings, split_tracks
from store.errors import BadInput
from store.files import exists, list_names, local_path, open_for_reading, read_bytes
from store.listing import below, find_files
from store.tags import read_credits

CATALOGUE_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("url", pa.string()),
        ("size_bytes", pa.int64()),
        ("artist", pa.string()),
        ("album", pa.string()),
        ("title", pa.string()),
        ("genres", pa.list_(pa.string())),
        ("genre_top", pa.string()),
        ("split", pa.string()),
        ("duration_s", pa.float64()),
    ]
)
AUDIO_SUFFIXES = (
    ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".wav", ".aif", ".aiff", ".aifc",
    ".wma", ".asf",
)  # fmt: skip
SUBSETS = ("small", "medium", "large", "full")  # each within the next
FMA_TYPES = {
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
# What makes a folder's name look like a genre's, letters and digits only: GTZAN's, FMA's and a few more.
COMMON_GENRES = frozenset({
    "alternative", "ambient", "blues", "children", "classical", "country", "dance", "disco", "easylistening",
    "electronic", "electronica", "experimental", "folk", "funk", "gospel", "hiphop", "historic", "house",
    "indie", "instrumental", "international", "jazz", "latin", "metal", "newage", "oldtimehistoric", "opera",
    "pop", "punk", "rap", "reggae", "rnb", "rock", "soul", "soulrnb", "soundtrack", "spoken", "techno",
    "trance", "world",
})  # fmt: skip

Row = dict[str, Any]


class CatalogueSettings(BaseModel):
    """What lies in the source, and how its tracks are split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "fma", "folder-per-genre", "flat"] = Field(
        default="auto",
        description="fma: tracks.csv and fma_*/ as published; folder-per-genre: GENRE/file; flat: any folder "
        "of audio, no genres; auto: fma if there is a tracks.csv, folder-per-genre if all audio lies one "
        "folder down and most of these folders are named like a common genre, else flat",
    )
    subset: Literal["small", "medium", "large", "full"] | None = Field(
        default=None, description="Which of FMA's folders fma_* to read; none: the largest there is"
    )
    split: SplitSettings = Field(default=SplitSettings(), description="Training, validation and test")


@dataclass(frozen=True)
class Genre:
    """A node of the genre tree; a root has no parent."""

    genre_id: int
    parent_id: int | None
    title: str


def read_catalogue(source: str, settings: CatalogueSettings) -> pa.Table:
    """List the tracks of a folder or URL, with what is known of them, in order of track_id.

    Shapes: columns of CATALOGUE_SCHEMA. FMA's ids are sorted as numbers, paths as text.
    Raises: BadInput if there are no tracks, or the metadata or the splits cannot be used.

    Hidden files, and files whose suffix is not one of AUDIO_SUFFIXES, are no tracks. A
    track of FMA's whose file is not there is listed without a size.
    """
    source, kind = _absolute(source), settings.kind
    tracks_url = _find_tracks_csv(source) if kind in ("auto", "fma") else None
    if kind == "fma" or tracks_url is not None:
        rows = _read_fma(source, tracks_url, settings.subset)
    else:
        sizes = _find_audio(source)
        if kind == "auto":
            kind = "folder-per-genre" if _looks_like_genre_folders(sizes) else "flat"
        rows = [_folder_row(source, path, size, kind) for path, size in sorted(sizes.items())]
    columns = {name: [row.get(name) for row in rows] for name in CATALOGUE_SCHEMA.names}
    return split_tracks(pa.table(columns, schema=CATALOGUE_SCHEMA), settings.split)


def read_genre_tree(url: str) -> dict[int, Genre]:
    """Read FMA's genres.csv.

    Raises: BadInput if it lacks a column, holds something that is no number where one belongs,
        or its parents do not lead to a root.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(read_bytes(url).decode("utf-8-sig")), restval=""))
        tree = {
            int(line["genre_id"]): Genre(int(line["genre_id"]), int(line["parent"]) or None, line["title"])
            for line in lines
        }
    except FileNotFoundError:
        raise BadInput(f"{url}: no such file; wanted FMA's genres; get it from fma_metadata.zip") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise BadInput(
            f"{url}: not a genre tree ({_one_line(error)}); wanted the columns genre_id, parent and title, "
            "numbers in the first two; get it from fma_metadata.zip"
        ) from error
    for genre in tree.values():
        ancestor, steps = genre, 0
        while ancestor.parent_id is not None:
            if ancestor.parent_id not in tree or steps > len(tree):
                raise BadInput(
                    f"{url}: genre {genre.genre_id} ({genre.title}) leads to parent {ancestor.parent_id}, "
                    "and from there to no root; correct the column parent"
                )
            ancestor, steps = tree[ancestor.parent_id], steps + 1
    return tree


def with_ancestors(genre_ids: Iterable[int], tree: Mapping[int, Genre]) -> set[int]:
    """Add to some genres all their ancestors. Raises: KeyError for a genre that is not in the tree."""
    closed: set[int] = set()
    for genre_id in genre_ids:
        ancestor: int | None = genre_id
        while ancestor is not None and ancestor not in closed:
            closed.add(ancestor)
            ancestor = tree[ancestor].parent_id
    return closed


# Folders of audio


def _find_audio(source: str) -> dict[str, int | None]:
    """List the audio files below a folder: path relative to it -> size in bytes, null if not told.

    Raises: BadInput if there is no such folder, no audio in it, or it may not be read.
    """
    try:
        sizes = find_files(source)
    except FileNotFoundError:
        raise BadInput(f"{source}: no such folder; check the path or URL of the source") from None
    except NotADirectoryError:
        raise BadInput(f"{source}: this is a file; wanted a folder of audio files") from None
    except PermissionError as error:
        folder = error.filename or source
        raise BadInput(f"{folder}: no permission to list this folder; grant it, or move it away") from error
    audio = {path: size for path, size in sizes.items() if _is_audio(path)}
    if not audio:
        raise BadInput(
            f"{source}: {len(sizes)} files, none of them audio; wanted {' '.join(AUDIO_SUFFIXES)}; "
            "check the path or URL of the source"
        )
    unnameable = [path for path in audio if path.encode("utf-8", "replace").decode() != path]
    if unnameable:
        raise BadInput(
            f"{source}: the names of {len(unnameable)} files are not UTF-8, the first {unnameable[0]!a}; "
            "no table can hold them; rename them (convmv does it for whole folders)"
        )
    return audio


def _is_audio(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in pure.parts)


def _looks_like_genre_folders(paths: Iterable[str]) -> bool:
    """Say whether all audio lies one folder down, and most folders bear the name of a common genre.

    A folder per artist or album has the same shape: only the names tell them apart.
    """
    parts = [PurePosixPath(path).parts for path in paths]
    if any(len(each) != 2 for each in parts):
        return False
    folders = {each[0] for each in parts}
    known = [name for name in folders if "".join(filter(str.isalnum, name.casefold())) in COMMON_GENRES]
    return len(folders) >= 2 and len(known) * 2 > len(folders)


def _folder_row(source: str, path: str, size_bytes: int | None, kind: str) -> Row:
    row: Row = {"track_id": path, "url": below(source, path), "size_bytes": size_bytes}
    parts = PurePosixPath(path).parts
    if kind == "folder-per-genre":
        if len(parts) > 1:
            row |= {"genre_top": parts[0], "genres": [parts[0]]}
        row |= _credits(row["url"])
    return row


def _credits(url: str) -> Row:
    """Read who made a track from its tags; not from afar, where it would cost a fetch for each file."""
    path = local_path(url)
    if path is None:
        return {}
    try:
        found = read_credits(path)
    except (BadInput, PermissionError, FileNotFoundError):
        return {}  # still a track: whoever decodes it finds out what is wrong, and writes it down
    return {"artist": found.artist, "album": found.album, "title": found.title}


def _absolute(source: str) -> str:
    """Make a local path absolute, since workers start elsewhere."""
    local = local_path(source)
    return source if local is None else str(local)


# The Free Music Archive's dataset


def _find_tracks_csv(source: str) -> str | None:
    """Find FMA's table of tracks, in fma_metadata or in the source itself."""
    places = (below(source, "fma_metadata/tracks.csv"), below(source, "tracks.csv"))
    return next((url for url in places if exists(url)), None)


def _read_fma(source: str, tracks_url: str | None, wanted_subset: str | None) -> list[Row]:
    if tracks_url is None:
        found = "no fma_metadata/tracks.csv and no tracks.csv" if exists(source) else "no such folder"
        raise BadInput(
            f"{source}: {found}; wanted FMA's metadata; unpack fma_metadata.zip there, "
            "or set kind to folder-per-genre, flat or auto"
        )
    genres_url = tracks_url.replace("tracks.csv", "genres.csv")
    subset = _choose_subset(source, wanted_subset)
    folder = below(source, f"fma_{subset}")
    tracks = [track for track in _read_tracks(tracks_url) if _is_in_subset(track, subset, tracks_url)]
    if not tracks:
        raise BadInput(f"{tracks_url}: no track of the subset {subset}; choose another subset")
    sizes = _find_audio(folder)
    tree = read_genre_tree(genres_url)
    rows_of_genres: dict[str | None, list[str] | None] = {None: None}
    rows: list[Row] = []
    for track in sorted(tracks, key=lambda track: track["track_id"]):
        genres = track["track.genres_all"]
        if genres not in rows_of_genres:
            where = f"{tracks_url}: track {track['track_id']}"
            rows_of_genres[genres] = _titles(genres, tree, where, genres_url)
        rows.append(_fma_row(track, rows_of_genres[genres], folder, sizes))
    track_id, times = Counter(row["track_id"] for row in rows).most_common(1)[0]
    if times > 1:
        raise BadInput(
            f"{tracks_url}: track {track_id} is there {times} times; wanted once; remove the others"
        )
    if not any(_fma_path(track["track_id"]) in sizes for track in tracks):
        raise BadInput(
            f"{folder}: none of the {len(rows)} tracks in {tracks_url} is there; wanted files like "
            f"{_fma_path(tracks[0]['track_id'])}; check that metadata and audio belong together"
        )
    return rows


def _choose_subset(source: str, wanted: str | None) -> str:
    """Name the FMA subset to read: the wanted one, else the largest whose folder is there."""
    names = list_names(source)
    there = [subset for subset in SUBSETS if f"fma_{subset}" in names]
    subset = wanted or (there[-1] if there else None)
    if subset is None or subset not in there:
        raise BadInput(
            f"{source}: found {', '.join(f'fma_{each}' for each in there) or 'no folder fma_*'}; "
            f"wanted {f'fma_{wanted}' if wanted else 'fma_small, fma_medium, fma_large or fma_full'}; "
            f"unpack FMA's audio there{', or choose a subset that is there' if there else ''}"
        )
    return subset


def _is_in_subset(track: Row, subset: str, tracks_url: str) -> bool:
    own = track["set.subset"]
    if own not in SUBSETS:
        raise BadInput(
            f"{tracks_url}: track {track['track_id']} is in the subset {own!r}; wanted {', '.join(SUBSETS)}"
        )
    return SUBSETS.index(own) <= SUBSETS.index(subset)


def _fma_row(track: Row, genres: list[str] | None, folder: str, sizes: Mapping[str, int | None]) -> Row:
    path = _fma_path(track["track_id"])
    return {
        "track_id": str(track["track_id"]),
        "url": below(folder, path),
        "size_bytes": sizes.get(path),
        "artist": track["artist.name"],
        "album": track["album.title"],
        "title": track["track.title"],
        "genres": genres,
        "genre_top": track["track.genre_top"],
        "split": track["set.split"],
        "duration_s": track["track.duration"],
    }


def _fma_path(track_id: int) -> str:
    name = f"{track_id:06d}"
    return f"{name[:3]}/{name}.mp3"


def _titles(genres: str, tree: Mapping[int, Genre], where: str, genres_url: str) -> list[str] | None:
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
    return sorted({tree[genre_id].title for genre_id in with_ancestors(genre_ids, tree)}) or None


def _read_tracks(url: str) -> list[Row]:
    """Read what we use of FMA's tracks.csv: one row a track, keys as "track.title", blank text as null.

    Raises: BadInput if it is of another shape.
    """
    names = _read_header(url)
    try:
        with open_for_reading(url) as file:
            table = pyarrow.csv.read_csv(
                file,
                # A row must fit into a block, and some biographies are long.
                pyarrow.csv.ReadOptions(column_names=names, skip_rows=3, block_size=1 << 24),
                pyarrow.csv.ParseOptions(newlines_in_values=True),
                pyarrow.csv.ConvertOptions(
                    include_columns=list(FMA_TYPES),
                    column_types=FMA_TYPES,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except pa.ArrowInvalid as error:
        raise BadInput(
            f"{url}: {_one_line(error)}; wanted FMA's tracks.csv, {len(names)} columns in each row; "
            "unpack it anew from fma_metadata.zip"
        ) from error
    columns = {name: table[name].to_pylist() for name in FMA_TYPES}
    if None in columns["track_id"]:
        raise BadInput(f"{url}: data row {columns['track_id'].index(None) + 1} has no track_id")
    for name in (name for name, kind in FMA_TYPES.items() if kind == pa.string()):
        columns[name] = [text.strip() or None if text else None for text in columns[name]]
    strange = set(columns["set.split"]) - {*SPLITS, None}
    if strange:
        raise BadInput(f"{url}: found the split {min(strange)!r}; wanted {', '.join(SPLITS)} or nothing")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


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
            f"{url}: the file begins with {found!r}; wanted {wanted}; unpack it anew from fma_metadata.zip, "
            "or rename it and set kind to folder-per-genre or flat"
        )
    pairs = zip(header[0][1:], header[1][1:], strict=False)  # rows of unlike lengths lack columns: see below
    names = ["track_id", *(f"{group}.{name}" for group, name in pairs)]
    missing = [name for name in FMA_TYPES if name not in names]
    if missing:
        raise BadInput(f"{url}: no column {', '.join(missing)}; wanted {wanted}")
    return names


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
