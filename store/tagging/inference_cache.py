"""The predictions for the files of one batch, kept for every run that predicts in the same way.

A row is valid as long as its file has the signature in it. Writing tags changes the signature and the
tags of a file, and not its audio: so the row is updated then, not predicted again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from store.fs.parquet import read_table, write_table
from store.tagging.predictions import INFERENCE_SCHEMA, table_rows
from store.tags.schema import CUSTOM_TAG_NAMES

Row = Mapping[str, Any]


def read_inference(url: str) -> list[dict[str, Any]]:
    """Return the rows of INFERENCE_SCHEMA of a batch; none if it was never predicted."""
    try:
        return table_rows(read_table(url))
    except FileNotFoundError:
        return []


def write_inference(url: str, rows: Sequence[Row]) -> None:
    """Replace the rows of a batch in one step."""
    write_table(url, pa.Table.from_pylist(list(rows), schema=INFERENCE_SCHEMA))


def update_inference(url: str, done: Iterable[Row]) -> None:
    """Record how files look after `apply_batch` or `undo_batch`, from the rows that these returned.

    A row about other content than the file had before stays as it is. The row of a file that turned out to have
    changed is dropped, though its signature may be the same.
    """
    cached = read_inference(url)
    results = {row["track_id"]: row for row in done}
    updated = [
        _updated(row, results[row["track_id"]]) if row["track_id"] in results else row for row in cached
    ]
    if updated != cached:
        write_inference(url, [row for row in updated if row is not None])


def _updated(row: dict[str, Any], result: Row) -> dict[str, Any] | None:
    if row["signature"] != result["old_signature"]:
        return row
    match result["status"]:
        case "written" | "kept":  # kept: it had these genres already, though the row may not say so
            custom_tags = {**(row["old_custom_tags"] or {}), **dict(result["custom_tags"] or {})}
        case "restored" | "restored-tags" | "as-it-was":
            others = (row["old_custom_tags"] or {}).items()
            custom_tags = {name: text for name, text in others if name not in CUSTOM_TAG_NAMES}
            custom_tags |= dict(result["custom_tags"] or {})
        case "skipped" if result["reason"] == "changed":
            return None
        case _:
            return row
    return row | {
        "signature": result["signature"],
        "old_genres": result["genres"],
        "old_custom_tags": custom_tags,
    }
