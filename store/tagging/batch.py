"""Tags written into a batch of files, and taken back: safe to stop at any instant, and to run again."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from store.fs.s3_objects import download_object, has_version
from store.tagging.byte_delta import apply_delta
from store.tagging.journal import digest_file, read_journal
from store.tagging.local_swap import plan_files, swap_files
from store.tagging.s3_swap import is_s3_url, plan_objects, swap_objects
from store.tagging.settings import WriteSettings
from store.tagging.swap import FileSkipped, PlannedChange, SwapJob, SwapResult
from store.tags.formats import CUSTOM_TAG_NAMES, FileTags, TagEdit, detect_tag_format, parse_tags
from store.tags.write import checked_edit, write_tagged_copy

__all__ = ["WriteSettings", "apply_batch", "undo_batch"]

Row = Mapping[str, Any]
OwnWork = Callable[[], set[tuple[str, bytes]]]  # the (URL, digest) that this batch's journal announced

WOULD_BE = {"restored": "would-restore", "restored-tags": "would-restore-tags"}


def apply_batch(
    rows: Sequence[Row], *, settings: WriteSettings, journal_url: str, name: str
) -> list[dict[str, Any]]:
    """Write genres and notes of PREDICTIONS_SCHEMA rows into their files, and tell what became of each.

    Shapes: each row comes back with status written | skipped, reason, detail, and its new signature.
    Raises: OSError if a disk is full or fails; the same call then completes the batch.

    Reasons: changed, read-only, hard-linked, missing, no-permission, same-file, unsupported.
    """
    own_work = _own_work(journal_url, name)
    jobs = [SwapJob(row["track_id"], row["url"], partial(_look_to_tag, row, own_work)) for row in rows]
    outcomes = _swap(jobs, settings=settings, journal_url=journal_url, name=name)
    return [
        {
            **row,
            "status": outcome.status,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "signature": outcome.signature or row["signature"],
        }
        for row, outcome in zip(rows, outcomes, strict=True)
    ]


def undo_batch(
    journal_rows: Sequence[Row],
    *,
    settings: WriteSettings,
    journal_url: str,
    name: str,
    even_changed: bool,
    dry_run: bool,
) -> list[dict[str, Any]]:
    """Put back what files were before, as the rows of one batch's journal tell, byte for byte where it can be.

    Shapes: a row a file: track_id, url, genres, status restored | restored-tags | as-it-was | skipped,
    reason, detail, signature; in a dry run would-restore | would-restore-tags, and nothing is touched.
    Raises: OSError if a disk is full or fails; the same call then completes the batch.

    A file that changed since is skipped, or with `even_changed` gets its genres and notes back and
    keeps what else was done to it. The undo has a journal of its own: it can be undone.
    """
    own_work = _own_work(journal_url, name)
    rows_of: dict[str, list[Row]] = {}
    for row in journal_rows:  # several attempts at a batch may have journalled the same file
        rows_of.setdefault(row["url"], []).append(row)
    jobs = [
        SwapJob(rows[0]["track_id"], url, partial(_look_to_undo, rows, own_work, even_changed))
        for url, rows in rows_of.items()
    ]
    if dry_run:
        outcomes = _each_kind(jobs, partial(plan_files, settings=settings), plan_objects)
    else:
        outcomes = _swap(jobs, settings=settings, journal_url=journal_url, name=name)
    return [
        {
            "track_id": job.track_id,
            "url": job.url,
            "genres": rows_of[job.url][-1]["old_genres"],
            "status": WOULD_BE.get(outcome.status, outcome.status) if dry_run else outcome.status,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "signature": outcome.signature,
        }
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]


def _swap(
    jobs: Sequence[SwapJob], *, settings: WriteSettings, journal_url: str, name: str
) -> list[SwapResult]:
    return _each_kind(
        jobs,
        partial(swap_files, settings=settings, journal_url=journal_url, name=name),
        partial(swap_objects, journal_url=journal_url, name=name),
    )


def _each_kind(
    jobs: Sequence[SwapJob],
    of_files: Callable[[Sequence[SwapJob]], list[SwapResult]],
    of_objects: Callable[[Sequence[SwapJob]], list[SwapResult]],
) -> list[SwapResult]:
    """Do with files on disks and objects in buckets what is done with each, and answer in their order."""
    files = iter(of_files([job for job in jobs if not is_s3_url(job.url)]))
    objects = iter(of_objects([job for job in jobs if is_s3_url(job.url)]))
    return [next(objects if is_s3_url(job.url) else files) for job in jobs]


def _own_work(journal_url: str, name: str) -> OwnWork:
    """Look up, only once and only if asked, what earlier attempts at a batch were about to write."""
    return cache(lambda: {(row["url"], row["new_digest"]) for row in read_journal(journal_url, name)})


def _look_to_tag(row: Row, own_work: OwnWork, real: Path, signature: str) -> PlannedChange:
    if signature != row["signature"]:
        if (row["url"], digest_file(real)) in own_work():
            return PlannedChange("written", None)
        raise FileSkipped("changed", "the file changed since it was listened to")
    edit = checked_edit(row["genres"], dict(row.get("custom_tags") or {}))
    return PlannedChange("written", partial(write_tagged_copy, edit=edit))


def _look_to_undo(
    rows: Sequence[Row], own_work: OwnWork, even_changed: bool, real: Path, signature: str
) -> PlannedChange:
    digest = digest_file(real)
    done = next((row for row in rows if row["new_digest"] == digest), None)
    if done is not None:
        if done["delta"] is None and done["version"] and has_version(done["url"], done["version"]):
            return PlannedChange("restored", partial(_fetch, done), digest=digest)
        if done["delta"] is None:
            return PlannedChange("restored-tags", partial(_retag, done), done["mtime_ns"], digest)
        return PlannedChange("restored", partial(_rebuild, done), done["mtime_ns"], digest)
    is_mine = (rows[0]["url"], digest) in own_work()
    if any(row["old_digest"] == digest for row in rows):
        return PlannedChange("restored" if is_mine else "as-it-was", None)
    if is_mine:
        return PlannedChange("restored-tags", None)
    if even_changed:
        return PlannedChange("restored-tags", partial(_retag, rows[-1]), digest=digest)
    raise FileSkipped("changed", "the file changed since it was tagged")


def _rebuild(row: Row, real: Path, draft: Path) -> FileTags:
    """Make the old bytes out of the present ones, and give the tags of the present ones."""
    apply_delta(real, row["delta"], draft)
    if digest_file(draft) != row["old_digest"]:
        raise FileSkipped("damaged-journal", "what the journal holds does not give the file's former bytes")
    return parse_tags(real, detect_tag_format(real))


def _fetch(row: Row, real: Path, draft: Path) -> FileTags:
    """Take the old bytes from the bucket, which kept them, and give the tags of the present ones."""
    download_object(row["url"], draft, version_id=row["version"])
    if digest_file(draft) != row["old_digest"]:
        raise FileSkipped("damaged-journal", "the version that the journal names is not what the object was")
    return parse_tags(real, detect_tag_format(real))


def _retag(row: Row, real: Path, draft: Path) -> FileTags:
    """Put the old genres and notes back, and leave the rest as it is now."""
    custom_tags = {name: row["old_custom_tags"].get(name) for name in CUSTOM_TAG_NAMES}
    return write_tagged_copy(real, draft, TagEdit(tuple(row["old_genres"]), custom_tags))
