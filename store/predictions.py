"""Results of a tagging run: Parquet, one row a track, a part for each batch until all are in.

ROOT/RUN/heard/NAME.parquet         what one batch of files sounded like
ROOT/RUN/predictions-TIME.parquet   what became of every file, once the run is through
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from store.errors import BadInput
from store.files import join, list_names, local_path
from store.tables import read_table, write_table
from store.tags import copy_with_genres, read_genres, write_genres

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),  # the path within the source
        ("url", pa.string()),
        ("size_bytes", pa.int64()),  # what the file was when it was listened to
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),  # moves with our own writes, which keep the other two
        ("status", pa.string()),  # change | written | copied | kept | unsure | rejected | failed
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        ("genres", pa.list_(pa.string())),  # what the model says, the likeliest first
        ("confidence", pa.float64()),  # the probability of the likeliest genre
        ("probabilities", pa.list_(pa.float32())),  # one a genre, in the model's order
        ("model_version", pa.string()),
    ]
)


def keep_heard(run_url: str, rows: pa.Table) -> None:
    """Keep what one batch sounded like, whole, so that a run that is stopped need not listen again."""
    write_table(join(run_url, "heard", f"{uuid4().hex}.parquet"), rows)


def read_heard(run_url: str) -> pa.Table:
    """Read all that was kept: nothing, if there was no such run."""
    names = list_names(join(run_url, "heard"))
    parts = [read_table(join(run_url, "heard", name)) for name in names if name.endswith(".parquet")]
    return pa.concat_tables(parts) if parts else PREDICTIONS_SCHEMA.empty_table()


def write_tags(rows: Sequence[dict[str, Any]], *, copy_to: str | None) -> pa.Table:
    """Write the genres of PREDICTIONS_SCHEMA rows into the files, or into copies below `copy_to`.

    A file that cannot be tagged is an answer (`failed`, with the reason) and stays as it was.

    Raises: OSError if the disk is full or fails; every file is then whole, with old or new tags.
    """
    done = [{**row, **_write_one(row, copy_to)} for row in rows]
    return pa.Table.from_pylist(done, schema=PREDICTIONS_SCHEMA)


def _write_one(row: dict[str, Any], copy_to: str | None) -> dict[str, Any]:
    path = local_path(row["url"])
    assert path is not None, "only local files are listened to for tagging"
    try:
        if copy_to is None and read_genres(path) == row["genres"]:
            return {"status": "written"}  # by this very task, before its worker was lost
        if signature(path) != (row["size_bytes"], row["mtime_ns"], row["ctime_ns"]):
            detail = "the file changed since it was listened to"
            return {"status": "failed", "reason": "changed", "detail": detail}
        if copy_to is None:
            write_genres(path, row["genres"])
            return {"status": "written"}
        target = Path(copy_to, row["track_id"])
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_with_genres(path, target, row["genres"])
        return {"status": "copied", "detail": str(target)}
    except BadInput as why:
        return {"status": "failed", "reason": "unsupported", "detail": str(why)}
    except FileNotFoundError:
        return {"status": "failed", "reason": "missing", "detail": "the file is gone"}
    except PermissionError as why:
        return {"status": "failed", "reason": "no-permission", "detail": str(why)}


def signature(path: Path) -> tuple[int, int, int]:
    """Tell a file from what it was: size, time of content and time of any change. Raises: OSError."""
    now = path.stat()
    return now.st_size, now.st_mtime_ns, now.st_ctime_ns


def write_predictions(run_url: str, rows: pa.Table) -> str:
    """Write a run's result in one file, beside those of earlier runs, and give its URL."""
    url = join(run_url, f"predictions-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.parquet")
    write_table(url, rows)
    return url
