"""The bodies of the tasks that write parts of a plan into files, or into copies, and that undo them."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from store.fs.files import join, local_path
from store.fs.signatures import read_signature
from store.tagging.batch import WriteSettings, apply_batch, undo_batch
from store.tagging.inference_cache import update_inference
from store.tagging.predictions import PREDICTIONS_SCHEMA, table_rows
from store.tagging.run import TaggingRun
from store.tagging.statistics import TaggingStatistics, count_rows
from store.tagging.swap.changes import FileSkipped
from store.tagging.swap.drafts import skip_if_unusable
from store.tagging.swap.journal import read_journal
from store.tagging.swap.local_swap import sweep_drafts
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
    """Write the planned genres into the files of these parts, or into copies below `copy_to`. Safe to run twice.

    Raises: OSError if the disk is full or fails; every file is then whole, with old or new tags.
    """
    statistics = TaggingStatistics()
    for part in parts:
        rows = table_rows(run.read_part("plan", part))
        changes = [row for row in rows if row["status"] == "change"]
        if copy_to is not None:
            done = [{**row, **_copy(row, Path(copy_to))} for row in changes]
        else:
            done = apply_batch(changes, settings=settings, journal_url=run.journal_url, name=part)
            if inference_url is not None:
                update_inference(join(inference_url, f"{part}.parquet"), done)
        results = {row["track_id"]: row for row in done}
        table = pa.Table.from_pylist(
            [results.get(row["track_id"], row) for row in rows], schema=PREDICTIONS_SCHEMA
        )
        run.write_part("done", part, table)
        statistics += count_rows(table)
    return statistics


def _copy(row: Row, folder: Path) -> Row:
    try:
        with skip_if_unusable(row["url"]):
            return {"status": "copied", "detail": str(_copy_file(row, folder))}
    except FileSkipped as why:
        return {"status": "skipped", "reason": why.reason, "detail": str(why)}


def _copy_file(row: Row, folder: Path) -> Path:
    """Write the copy of one file with its new genres, and return its path. Raises: FileSkipped, BadInput."""
    source, target = local_path(row["url"]), Path(folder, row["track_id"])
    if source is None:
        raise FileSkipped("unsupported", "copies are made of files on this machine only")
    if not target.resolve().is_relative_to(folder.resolve()):
        raise FileSkipped("outside-root", f"the copy would leave {folder}")
    if read_signature(row["url"]) != row["signature"]:
        raise FileSkipped("changed", "the file changed since its genres were predicted")
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_with_genres(source, target, row["genres"], custom_tags=row["custom_tags"])
    return target


def sweep_killed_run(run: TaggingRun) -> None:
    """Remove the drafts that a run left beside its files when it was killed."""
    for part in run.planned_parts() or ():
        urls = run.read_part("plan", part).column("url").to_pylist()
        sweep_drafts((url for url in urls if url), journal_url=run.journal_url, name=part)


def _written_genres(target: TaggingRun, part: str) -> dict[str, list[str]]:
    """Return the genres that a run wrote or was about to write into the files of a part, by URL."""
    for folder in ("done", "plan"):
        with suppress(FileNotFoundError):
            return {row["url"]: row["genres"] or [] for row in table_rows(target.read_part(folder, part))}
    return {}


def undo_parts(
    parts: Sequence[str],
    *,
    run: TaggingRun,
    target: TaggingRun,
    settings: WriteSettings,
    even_changed: bool,
    dry_run: bool,
) -> TaggingStatistics:
    """Restore files to their state in these parts of the journal of `target`. Safe to run twice.

    Raises: OSError if the disk is full or fails; every file is then whole, with these or those tags.
    """
    statistics = TaggingStatistics()
    for part in parts:
        done = undo_batch(
            read_journal(target.journal_url, part),
            settings=settings,
            journal_url=run.journal_url,
            name=part,
            even_changed=even_changed,
            dry_run=dry_run,
            genres_now=_written_genres(target, part),
        )
        if not dry_run:
            for url in run.inference_urls():
                update_inference(join(url, f"{part}.parquet"), done)
        table = pa.Table.from_pylist(done, schema=PREDICTIONS_SCHEMA)
        run.write_part("done", part, table)
        statistics += count_rows(table)
    return statistics
