"""The table of tracks, from FMA's metadata, a folder per genre or any folder of audio."""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.catalogue.audio_files import NO_RULES, find_audio
from preprocessing.catalogue.file_rules import FileRules
from preprocessing.catalogue.fma import find_fma_metadata, read_fma
from preprocessing.catalogue.settings import CatalogueSettings
from preprocessing.catalogue.source_counts import SourceCounts
from store.dataset.genre_tree import with_genre_parents
from store.errors import BadInput
from store.fs.files import absolute, is_file, local_path
from store.fs.listing import child_urls, list_files
from store.tags.write import Credits, read_credits

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
        ("signature", pa.string()),  # changes when the file does; null where the source has none
        ("sha1", pa.string()),  # as the source publishes it
        ("duplicate_group", pa.string()),  # the same for copies of a recording; null until they are built
    ]
)
# Names that identify folders as genres, letters and digits only: GTZAN's, FMA's and a few more.
COMMON_GENRES = frozenset({
    "alternative", "ambient", "blues", "children", "classical", "country", "dance", "disco", "easylistening",
    "electronic", "electronica", "experimental", "folk", "funk", "gospel", "hiphop", "historic", "house",
    "indie", "instrumental", "international", "jazz", "latin", "metal", "newage", "oldtimehistoric", "opera",
    "pop", "punk", "rap", "reggae", "rnb", "rock", "soul", "soulrnb", "soundtrack", "spoken", "techno",
    "trance", "world",
})  # fmt: skip
FIRST_FOLDER = r"^(?P<name>[^/]*)/"

Columns = dict[str, Any]  # name -> pyarrow array


def read_catalogue(
    source: str,
    settings: CatalogueSettings,
    *,
    rules: FileRules = NO_RULES,
    counts: SourceCounts | None = None,
) -> pa.Table:
    """List the tracks of a folder, URL or zip archive with their metadata, in order of track_id.

    Shapes: columns of CATALOGUE_SCHEMA. FMA's ids are sorted as numbers, paths as text.
    Raises: BadInput if there are no tracks, or the metadata cannot be used.

    Files whose suffix is not one of AUDIO_SUFFIXES, and those that a rule leaves out, are no tracks, but are
    counted. A track of FMA's whose file is missing is listed without a size. Splits are the source's own;
    `split_tracks` assigns others. The genre tree is in the schema's metadata: see
    `store.dataset.reader.Snapshot.genre_parents`.
    """
    counts = SourceCounts() if counts is None else counts
    source, kind = _enter_archive(absolute(source)), settings.kind
    genre_parents: dict[str, str] = {}
    metadata = find_fma_metadata(source) if kind in ("auto", "fma") else None
    if kind == "fma" or metadata is not None:
        checksums = settings.verify_checksums
        columns, genre_parents = read_fma(
            source, metadata, settings.subset, checksums=checksums, rules=rules, counts=counts
        )
    else:
        _refuse_checksums(source, settings)
        columns = _read_folder(source, kind, rules, counts)
    rows = len(columns["track_id"])
    return pa.table(
        [columns[it.name] if it.name in columns else pa.nulls(rows, it.type) for it in CATALOGUE_SCHEMA],
        schema=with_genre_parents(CATALOGUE_SCHEMA, genre_parents),
    )


def _refuse_checksums(source: str, settings: CatalogueSettings) -> None:
    if settings.verify_checksums:
        raise BadInput(
            f"{source}: not FMA's layout, and only FMA publishes checksums; set verify_checksums to false"
        )


def _enter_archive(source: str) -> str:
    """Turn the path of a zip archive into the URL of the folder within it.

    Raises: BadInput if it is no archive, or a part of one.

    If everything in it is within one folder that has folders, the archive was packed with that
    folder, and the URL is that folder's.
    """
    if not source.lower().endswith(".zip") or source.startswith("zip://") or not is_file(source):
        return source
    paths = list_files(f"zip://::{source}")["path"]
    is_junk = pa.array([NO_RULES.excluding_rule(it) is not None for it in paths.to_pylist()], pa.bool_())
    visible = paths.filter(pc.invert(is_junk))
    outermost = pc.unique(_first_folder(visible))
    is_packed_with_folder = (
        len(outermost) == 1
        and outermost[0].is_valid
        and pc.any(pc.greater(pc.count_substring(visible, "/"), 1)).as_py()
    )
    return f"zip://{outermost[0] if is_packed_with_folder else ''}::{source}"


def _read_folder(source: str, kind: str, rules: FileRules, counts: SourceCounts) -> Columns:
    files = find_audio(source, rules=rules, counts=counts)
    paths = files["path"]
    if kind == "auto":
        kind = "folder-per-genre" if _looks_like_genre_folders(paths) else "flat"
    columns = {
        "track_id": paths,
        "url": child_urls(source, paths),
        "size_bytes": files["size_bytes"],
        "signature": files["signature"],
    }
    if kind == "folder-per-genre":
        genres = _first_folder(paths)
        columns |= {"genre_top": genres, "genres": _as_lists(genres), **_credits(source, columns["url"])}
    return columns


def _first_folder(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the first folder of each path; null for a file that is in none."""
    found = pc.extract_regex(paths, FIRST_FOLDER)
    return pc.if_else(pc.is_valid(found), pc.struct_field(found, "name"), None)


def _as_lists(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make each text a list of one, null staying null."""
    lists = [
        pa.ListArray.from_arrays(range(len(chunk) + 1), chunk, mask=chunk.is_null()) for chunk in texts.chunks
    ]
    return pa.chunked_array(lists, pa.list_(pa.string()))


def _looks_like_genre_folders(paths: pa.ChunkedArray) -> bool:
    """Return whether all audio is one folder down, and most folders have the name of a common genre.

    A folder per artist or album has the same layout: only the names distinguish them.
    """
    if not pc.all(pc.equal(pc.count_substring(paths, "/"), 1)).as_py():
        return False
    folders = pc.unique(_first_folder(paths)).to_pylist()
    known = [name for name in folders if "".join(filter(str.isalnum, name.casefold())) in COMMON_GENRES]
    return len(folders) >= 2 and len(known) * 2 > len(folders)


def _credits(source: str, urls: pa.ChunkedArray) -> Columns:
    """Read artist, album and title from the tags of local files; remote ones would each have to be fetched."""
    if local_path(source) is None:
        return {}
    chunks = [_credits_of(chunk.to_pylist()) for chunk in urls.chunks]
    return {
        name: pa.chunked_array([chunk[name] for chunk in chunks], pa.string())
        for name in ("artist", "album", "title")
    }


def _credits_of(paths: Iterable[str]) -> dict[str, pa.Array]:
    found = [_read_credits(path) for path in paths]
    return {
        name: pa.array([it and getattr(it, name) for it in found], pa.string())
        for name in ("artist", "album", "title")
    }


def _read_credits(path: str) -> Credits | None:
    try:
        return read_credits(path)
    except (BadInput, PermissionError, FileNotFoundError):
        return None  # still a track: decoding it reports what is wrong
