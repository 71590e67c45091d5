"""The predictions of a tagging run, in Parquet: one row a file, and a part for each batch until all are done."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from store.errors import BadInput
from store.fs.csv_rows import BOM, quote_formula, write_csv
from store.fs.files import file_system, join, local_path, read_bytes, replacing, translate_server_errors
from store.tags.vocabulary.printable import mark_invisible

CUSTOM_TAGS = pa.map_(pa.string(), pa.string())

# The output of the network for a batch: valid as long as the signature of a file stays, under any policy.
INFERENCE_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("url", pa.string()),
        ("signature", pa.string()),
        ("status", pa.string()),  # predicted | not-needed (its tags decide) | rejected
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        ("old_custom_tags", CUSTOM_TAGS),
        ("album", pa.string()),
        ("probabilities", pa.list_(pa.float32())),  # raw, in the order of the model's genres
    ]
)

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),  # the path within the source
        ("url", pa.string()),
        ("signature", pa.string()),  # of the file when this was decided, or after it was written
        # change | written | copied | kept | unsure | rejected | skipped; of an undo restored | restored-tags |
        # as-it-was | skipped, and in a dry run would-restore | would-restore-tags
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        (
            "predicted_genres",
            pa.list_(pa.string()),
        ),  # in the model's names, the most probable first
        ("genres", pa.list_(pa.string())),  # all genres that the file is to have
        ("custom_tags", CUSTOM_TAGS),  # to be written too: GENRE_CONFIDENCE, GENRE_MODEL
        ("confidence", pa.float64()),  # the probability of the most probable genre
        ("probabilities", pa.list_(pa.float32())),  # calibrated, in the order of the model's genres
        ("model_version", pa.string()),
    ]
)
CSV_COLUMNS = (
    "track_id",
    "status",
    "old_genres",
    "genres",
    "apply",
    "predicted_genres",
    "confidence",
    "reason",
    "detail",
    "run",
)
APPLY = "apply"
PREDICTIONS_FILE, CSV_FILE = "predictions.parquet", "predictions.csv"
INCOMPLETE = {"status": "skipped", "reason": "incomplete"}
REQUIRED_COLUMNS = ("track_id", "url", "signature", "status", "genres")


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table, custom tags as dictionaries."""
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
    return rows


def write_predictions(url: str, csv_url: str, tables: Iterable[pa.Table], about: Mapping[str, str]) -> None:
    """Write tables of PREDICTIONS_SCHEMA, one after the other, into one Parquet file and one CSV.

    The Parquet file contains all columns, and `about` as metadata; the CSV what a person reads and corrects, a line a
    file: `about["run"]` names the run of each.
    """
    schema = PREDICTIONS_SCHEMA.with_metadata(dict(about))
    with (
        _atomic_file(url) as draft,
        _atomic_file(csv_url) as csv_draft,
        pq.ParquetWriter(draft, schema, compression="zstd") as writer,
        csv_draft.open("w", encoding="utf-8", newline="") as file,
    ):
        file.write(BOM)
        write_csv(file, CSV_COLUMNS, _write_parquet(tables, writer, about.get("run", "")))


def _write_parquet(
    tables: Iterable[pa.Table], writer: pq.ParquetWriter, run: str
) -> Iterator[dict[str, str]]:
    """Write tables into the Parquet file, and yield each row as the CSV has it."""
    for table in tables:
        writer.write_table(table.cast(writer.schema))
        yield from (csv_cells(row) | {"run": run} for row in table.to_pylist())


def csv_cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a row of PREDICTIONS_SCHEMA: nothing that a terminal or a spreadsheet would execute."""
    cells = {name: row.get(name) or "" for name in ("track_id", "status", "reason", "detail")}
    cells |= {name: "; ".join(row.get(name) or ()) for name in ("old_genres", "predicted_genres", "genres")}
    confidence = row.get("confidence")
    return {name: quote_formula(mark_invisible(text)) for name, text in cells.items()} | {
        APPLY: "yes" if _is_change(row) else "no",
        "confidence": "" if confidence is None else f"{confidence:.3f}",
    }


def _is_change(row: Mapping[str, Any]) -> bool:
    """Return whether a row is to be applied. What was skipped may be writable by now, and is examined again."""
    status = row.get("status")
    return status in ("change", "copied") or (status == "skipped" and bool(row.get("genres")))


def open_predictions(url: str) -> pq.ParquetFile:
    """Open a file of predictions. Raises: BadInput if it does not exist, or lacks a column that writing needs."""
    path = local_path(url)
    if path is not None and path.is_dir():
        raise BadInput(f"{url}: a folder; name {PREDICTIONS_FILE} or {CSV_FILE} in it")
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
    return file


def read_predictions(url: str, rows_at_once: int) -> tuple[dict[str, str], Iterator[pa.Table]]:
    """Open a file of predictions; return its metadata, and its rows, some at a time, as PREDICTIONS_SCHEMA.

    Raises: BadInput if it does not exist, or lacks a column that is needed to write tags.

    Additional columns are left out, missing ones are null: other programs may have written the file, to
    remove lines or to correct genres.
    """
    file = open_predictions(url)
    about = {key.decode(): text.decode() for key, text in (file.schema_arrow.metadata or {}).items()}
    return about, (_with_schema(batch, url) for batch in file.iter_batches(rows_at_once))


def planned_row(row: dict[str, Any], root: str) -> dict[str, Any]:
    """Return what is to be done with the file of a row, which other programs may have written."""
    row["track_id"] = row["track_id"] or row["url"] or "(no name)"
    is_change = _is_change(row)
    if not all(row[name] for name in ("url", "status", "signature")):
        if row["status"] is not None and not is_change:
            return row
        return row | INCOMPLETE | {"detail": "url, status or signature is missing"}
    if row["status"] == "written":
        return row | {"status": "kept", "reason": "has-genre", "detail": "written by the run before"}
    if not is_change:
        return row
    if not row["genres"]:
        return row | INCOMPLETE | {"detail": "no genre to write"}
    if not _lies_within(row, root):
        return row | {"status": "skipped", "reason": "outside-root", "detail": f"it is not in {root}"}
    if row["reason"] == "album-disagrees" and row["status"] == "change":
        return row
    return row | {"status": "change", "reason": None, "detail": None}


def _lies_within(row: dict[str, Any], root: str) -> bool:
    path, folder = local_path(row["url"]), local_path(root)
    if path is None or folder is None:
        return path is folder is None and row["url"] in (root, join(root, row["track_id"]))
    return path.resolve().is_relative_to(folder.resolve())


def _with_schema(batch: pa.RecordBatch, url: str) -> pa.Table:
    columns = [
        _column(batch, it, url) if it.name in batch.schema.names else pa.nulls(len(batch), it.type)
        for it in PREDICTIONS_SCHEMA
    ]
    return pa.table(columns, schema=PREDICTIONS_SCHEMA)


def _column(batch: pa.RecordBatch, field: pa.Field, url: str) -> pa.Array:
    """Return a column in its type. Other programs have no maps, and write them as lists; and NaN for null."""
    column = batch[field.name]
    try:
        if field.name == "custom_tags":
            return pa.array([_custom_tags(value) for value in column.to_pylist()], CUSTOM_TAGS)
        if field.name == "confidence" and pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
        return column.cast(field.type)
    except (pa.ArrowException, TypeError, ValueError):
        raise BadInput(
            f"{url}: the column {field.name} holds {column.type}; wanted {field.type}, as the run wrote it"
        ) from None


def _custom_tags(value: Any) -> dict[str, str] | None:
    if not value:
        return None
    pairs = [tuple(pair.values()) if isinstance(pair, dict) else pair for pair in value]
    return {str(name): str(text) for name, text in pairs}


@contextmanager
def _atomic_file(url: str) -> Iterator[Path]:
    """Yield a local path to write to; the file appears at `url` whole, or not at all."""
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
