"""The plan into the files, or into copies of them: the body of a task that writes one part."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from store.errors import BadInput
from store.fs.files import join, local_path
from store.fs.parquet import read_table, write_table
from store.fs.stream import read_signature
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.journal import read_journal
from store.tagging.predictions import INFERENCE_SCHEMA, PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics, count_rows
from store.tags.write import copy_with_genres

Row = dict[str, Any]


def write_parts(
    parts: Sequence[str],
    *,
    run: TaggingRun,
    settings: WriteSettings,
    copy_to: str | None,
    inference_url: str | None,
) -> TaggingStatistics:
    """Write what the plan says into the files of these parts, or into copies below `copy_to`. Safe to run twice.

    Raises: OSError if the disk is full or fails; every file is then whole, with old or new tags.
    """
    told = TaggingStatistics()
    for part in parts:
        rows = table_rows(run.read_part("plan", part))
        changes = [row for row in rows if row["status"] == "change"]
        if copy_to is not None:
            done = [{**row, **_copy(row, Path(copy_to))} for row in changes]
        else:
            done = apply_batch(changes, settings=settings, journal_url=run.journal_url, name=part)
        became = {row["track_id"]: row for row in done}
        table = pa.Table.from_pylist(
            [became.get(row["track_id"], row) for row in rows], schema=PREDICTIONS_SCHEMA
        )
        if copy_to is None and inference_url is not None:
            _renew_hearings(join(inference_url, f"{part}.parquet"), done)
        run.write_part("done", part, table)
        told += count_rows(table)
    return told


def _copy(row: Row, folder: Path) -> Row:
    source, target = local_path(row["url"]), folder / row["track_id"]
    if source is None:
        return _skipped("unsupported", "copies are made of files on this machine only")
    if not target.resolve().is_relative_to(folder.resolve()):
        return _skipped("outside-root", f"the copy would leave {folder}")
    try:
        if read_signature(row["url"]) != row["signature"]:
            return _skipped("changed", "the file changed since it was listened to")
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_with_genres(source, target, row["genres"], custom_tags=row["custom_tags"])
    except BadInput as why:
        return _skipped("unsupported", str(why))
    except FileNotFoundError:
        return _skipped("missing", "the file is gone")
    except PermissionError as why:
        return _skipped("no-permission", str(why))
    return {"status": "copied", "detail": str(target)}


def _skipped(reason: str, detail: str) -> Row:
    return {"status": "skipped", "reason": reason, "detail": detail}


def _renew_hearings(inference_url: str, done: Sequence[Row]) -> None:
    """Note how files look now: their audio is what was heard, so nobody need listen to it again."""
    written = {row["track_id"]: row for row in done if row["status"] == "written"}
    try:
        heard = table_rows(read_table(inference_url))
    except FileNotFoundError:
        return
    for row in heard:
        new = written.get(row["track_id"])
        if new is not None:
            custom_tags = {**(row["old_custom_tags"] or {}), **dict(new["custom_tags"] or {})}
            row |= {
                "signature": new["signature"],
                "old_genres": new["genres"],
                "old_custom_tags": custom_tags,
            }
    write_table(inference_url, pa.Table.from_pylist(heard, schema=INFERENCE_SCHEMA))


def undo_parts(
    parts: Sequence[str],
    *,
    run: TaggingRun,
    target: TaggingRun,
    settings: WriteSettings,
    even_changed: bool,
    dry_run: bool,
) -> TaggingStatistics:
    """Put back what these parts of the journal of `target` say that files were. Safe to run twice.

    Raises: OSError if the disk is full or fails; every file is then whole, with these or those tags.
    """
    told = TaggingStatistics()
    for part in parts:
        done = undo_batch(
            read_journal(target.journal_url, part),
            settings=settings,
            journal_url=run.journal_url,
            name=part,
            even_changed=even_changed,
            dry_run=dry_run,
        )
        table = pa.Table.from_pylist(done, schema=PREDICTIONS_SCHEMA)
        run.write_part("done", part, table)
        told += count_rows(table)
    return told
