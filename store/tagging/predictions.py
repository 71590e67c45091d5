"""What a tagging run says of files: Parquet, one row a file, a part for each batch until all are in."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.errors import BadInput
from store.fs.csv_rows import write_csv
from store.fs.files import file_system, join, local_path, read_bytes, replacing, translate_server_errors

CUSTOM_TAGS = pa.map_(pa.string(), pa.string())

# What a batch sounded like: true as long as a file's signature is the same, whatever is made of it.
INFERENCE_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("url", pa.string()),
        ("signature", pa.string()),
        ("status", pa.string()),  # predicted | not-needed (there was no need to listen) | rejected
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        ("old_custom_tags", CUSTOM_TAGS),
        ("album", pa.string()),
        ("probabilities", pa.list_(pa.float32())),  # the network's own, in the order of the model's genres
    ]
)

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),  # the path within the source
        ("url", pa.string()),
        ("signature", pa.string()),  # of the file as it was when this was decided, or as we left it
        # change | written | copied | kept | unsure | rejected | skipped; of an undo restored | restored-tags |
        # as-it-was | skipped, and in a dry run would-restore | would-restore-tags
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        (
            "predicted_genres",
            pa.list_(pa.string()),
        ),  # what the model says, in its own names, the likeliest first
        ("genres", pa.list_(pa.string())),  # all that the file is to have
        ("custom_tags", CUSTOM_TAGS),  # what else is to be written: GENRE_CONFIDENCE, GENRE_MODEL
        ("confidence", pa.float64()),  # the probability of the likeliest genre
        ("probabilities", pa.list_(pa.float32())),  # calibrated, in the order of the model's genres
        ("model_version", pa.string()),
    ]
)
CSV_COLUMNS = (
    "track_id",
    "status",
    "old_genres",
    "new_genres",
    "predicted_genres",
    "confidence",
    "reason",
    "detail",
)
INCOMPLETE = {"status": "skipped", "reason": "incomplete"}
REQUIRED_COLUMNS = ("track_id", "url", "signature", "status", "genres")


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Give the rows of a table, notes as dictionaries."""
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
    return rows


def write_predictions(url: str, csv_url: str, tables: Iterable[pa.Table], about: Mapping[str, str]) -> None:
    """Write tables of PREDICTIONS_SCHEMA, one after the other, into one Parquet file and one CSV.

    The Parquet file holds all, and what it is `about`; the CSV what a person wants to read, a line a file.
    """
    schema = PREDICTIONS_SCHEMA.with_metadata(dict(about))
    with (
        _whole_file(url) as draft,
        _whole_file(csv_url) as csv_draft,
        pq.ParquetWriter(draft, schema, compression="zstd") as writer,
        csv_draft.open("w", encoding="utf-8", newline="") as file,
    ):
        write_csv(file, CSV_COLUMNS, _write_parquet(tables, writer))


def _write_parquet(tables: Iterable[pa.Table], writer: pq.ParquetWriter) -> Iterator[dict[str, Any]]:
    """Write tables into the Parquet file, and yield each row as the CSV has it."""
    for table in tables:
        writer.write_table(table.cast(writer.schema))
        yield from map(_csv_row, table.to_pylist())


def _csv_row(row: dict[str, Any]) -> dict[str, Any]:
    genres = {name: "; ".join(row[name] or ()) for name in ("old_genres", "predicted_genres")}
    confidence = "" if row["confidence"] is None else f"{row['confidence']:.3f}"
    return row | genres | {"new_genres": "; ".join(row["genres"] or ()), "confidence": confidence}


def read_predictions(url: str, rows_at_once: int) -> tuple[dict[str, str], Iterator[pa.Table]]:
    """Open a file of predictions: what it is about, and its rows, some at a time, as PREDICTIONS_SCHEMA.

    Raises: BadInput if there is none, or it lacks what is needed to write tags by it.

    Columns that somebody added are left out, those that somebody left out are null: the file
    may have gone through other programs, where lines were removed or genres corrected.
    """
    path = local_path(url)
    try:
        file = pq.ParquetFile(pa.BufferReader(read_bytes(url)) if path is None else path)
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{url}: no such file; wanted the predictions.parquet of a tagging run") from None
    except pa.ArrowInvalid as why:
        raise BadInput(
            f"{url}: not readable as Parquet ({why}); wanted the predictions.parquet of a run"
        ) from None
    missing = [name for name in REQUIRED_COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise BadInput(f"{url}: has no column {missing[0]}; wanted the predictions.parquet of a tagging run")
    about = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
    return about, (_fitted(batch, url) for batch in file.iter_batches(rows_at_once))


def read_plan(url: str, source: str, rows_at_once: int) -> tuple[str, Iterator[pa.Table]]:
    """Read a file of predictions as a plan: its source, and, some rows at a time, what is to become of each file.

    Raises: BadInput if it cannot be used, or does not say of which source it is and `source` does not.

    The file may have come from elsewhere: it cannot lead out of the source that it is of.
    """
    about, tables = read_predictions(url, rows_at_once)
    root = source or about.get("source", "")
    if not root:
        raise BadInput(f"{url}: does not say of which source it is; name the folder with --source")
    planned = ([_as_planned(row, root) for row in table_rows(table)] for table in tables)
    return root, (pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA) for rows in planned)


def _as_planned(row: dict[str, Any], root: str) -> dict[str, Any]:
    row["track_id"] = row["track_id"] or row["url"] or "(no name)"
    if not all(row[name] for name in ("url", "status", "signature")):
        if row["status"] not in ("change", "copied", None):
            return row
        return row | INCOMPLETE | {"detail": "url, status or signature is missing"}
    if row["status"] == "written":
        return row | {"status": "kept", "reason": "has-genre", "detail": "written by the run before"}
    if row["status"] not in ("change", "copied"):
        return row
    if not row["genres"]:
        return row | INCOMPLETE | {"detail": "no genre to write"}
    if not _lies_within(row, root):
        return row | {"status": "skipped", "reason": "outside-root", "detail": f"it is not in {root}"}
    return row | {"status": "change", "reason": None, "detail": None}


def _lies_within(row: dict[str, Any], root: str) -> bool:
    path, folder = local_path(row["url"]), local_path(root)
    if path is None or folder is None:
        return path is folder is None and row["url"] == join(root, row["track_id"])
    return path.resolve().is_relative_to(folder.resolve())


def _fitted(batch: pa.RecordBatch, url: str) -> pa.Table:
    columns = [
        _column(batch, it, url) if it.name in batch.schema.names else pa.nulls(len(batch), it.type)
        for it in PREDICTIONS_SCHEMA
    ]
    return pa.table(columns, schema=PREDICTIONS_SCHEMA)


def _column(batch: pa.RecordBatch, wanted: pa.Field, url: str) -> pa.Array:
    """Give a column in its type. Other programs know no maps, and write them as lists; and NaN for nothing."""
    column = batch[wanted.name]
    try:
        if wanted.name == "custom_tags":
            return pa.array([_as_notes(value) for value in column.to_pylist()], CUSTOM_TAGS)
        if wanted.name == "confidence" and pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        return column.cast(wanted.type)
    except (pa.ArrowException, TypeError, ValueError):
        raise BadInput(
            f"{url}: the column {wanted.name} holds {column.type}; wanted {wanted.type}, as the run wrote it"
        ) from None


def _as_notes(value: Any) -> dict[str, str] | None:
    if not value:
        return None
    pairs = [tuple(pair.values()) if isinstance(pair, dict) else pair for pair in value]
    return {str(name): str(text) for name, text in pairs}


@contextmanager
def _whole_file(url: str) -> Iterator[Path]:
    """Give a path on this machine to write; what is written appears at `url` whole, or not at all."""
    path = local_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            yield draft
        return
    with TemporaryDirectory() as folder:
        draft = Path(folder, "draft")
        yield draft
        fs, remote = file_system(url)
        with translate_server_errors(url):
            fs.put_file(str(draft), remote)
