"""Tags written into a batch of files, and restored: safe to stop at any instant, and to run again.

Each file passes these steps: decide what it is to become (changes), write and verify a draft (swap), journal it
(journal), replace the file by the draft (local_swap, s3_swap).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from store.tagging.swap.changes import Request, TagRequest, UndoRequest
from store.tagging.swap.drafts import OwnWork, SwapResult
from store.tagging.swap.journal import read_journal
from store.tagging.swap.local_swap import dry_run_files, swap_files
from store.tagging.swap.s3_swap import dry_run_objects, is_s3_url, swap_objects
from store.tagging.swap.settings import WriteSettings

__all__ = ["WriteSettings", "apply_batch", "undo_batch"]

Row = Mapping[str, Any]
R = TypeVar("R", TagRequest, UndoRequest)

DRY_RUN_STATUSES = {"restored": "would-restore", "restored-tags": "would-restore-tags"}


def apply_batch(
    rows: Sequence[Row], *, settings: WriteSettings, journal_url: str, name: str
) -> list[dict[str, Any]]:
    """Write genres and custom tags of PREDICTIONS_SCHEMA rows into their files; return what became of each.

    Shapes: each row comes back with status written | skipped, reason, detail, its new signature, and the one
        that it had as old_signature.
    Raises: OSError if a disk is full or fails; the same call then completes the batch.

    Reasons: changed, read-only, hard-linked, missing, no-permission, same-file, unsupported.
    """
    requests = [TagRequest(row["track_id"], row["url"], row) for row in rows]
    results = _swap(requests, settings=settings, journal_url=journal_url, name=name)
    return [
        {
            **row,
            "status": result.status,
            "reason": result.reason or (None if result.status == "skipped" else row.get("reason")),
            "detail": result.detail or (None if result.status == "skipped" else row.get("detail")),
            "signature": result.signature or row["signature"],
            "old_signature": row["signature"],
        }
        for row, result in zip(rows, results, strict=True)
    ]


def undo_batch(
    journal_rows: Sequence[Row],
    *,
    settings: WriteSettings,
    journal_url: str,
    name: str,
    even_changed: bool,
    dry_run: bool,
    genres_now: Mapping[str, Sequence[str] | None] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Restore files to their state in one batch's journal, byte for byte where possible.

    Shapes: a row a file: track_id, url, old_genres (of `genres_now`, by URL), genres, custom_tags,
        status restored | restored-tags | as-it-was |
        skipped, reason, detail, signature, old_signature; in a dry run would-restore | would-restore-tags,
        and nothing is touched.
    Raises: OSError if a disk is full or fails; the same call then completes the batch.

    A file that changed since is skipped, or with `even_changed` gets its genres and custom tags back and
    keeps what else was done to it. The undo has a journal of its own: it can be undone.
    """
    requests = _undo_requests(journal_rows, even_changed=even_changed)
    if dry_run:
        results = _dry_run(requests, settings)
    else:
        results = _swap(requests, settings=settings, journal_url=journal_url, name=name)
    statuses = DRY_RUN_STATUSES if dry_run else {}
    return [
        {
            **_undo_row(request, result),
            "old_genres": genres_now.get(request.url),
            "status": statuses.get(result.status, result.status),
        }
        for request, result in zip(requests, results, strict=True)
    ]


def _undo_requests(journal_rows: Sequence[Row], *, even_changed: bool) -> list[UndoRequest]:
    """Return one request a file: several attempts at a batch may have journalled the same file."""
    entries: dict[str, list[Row]] = {}
    for row in journal_rows:
        entries.setdefault(row["url"], []).append(row)
    return [UndoRequest(own[0]["track_id"], url, own, even_changed) for url, own in entries.items()]


def _undo_row(request: UndoRequest, result: SwapResult) -> dict[str, Any]:
    return {
        "track_id": request.track_id,
        "url": request.url,
        "genres": request.entries[-1]["old_genres"],
        "custom_tags": request.entries[-1]["old_custom_tags"],
        "status": result.status,
        "reason": result.reason,
        "detail": result.detail,
        "signature": result.signature,
        "old_signature": result.old_signature,
    }


def _swap(requests: Sequence[R], *, settings: WriteSettings, journal_url: str, name: str) -> list[SwapResult]:
    own_work = _own_work(journal_url, name)
    files, objects = _by_storage(requests)
    return _in_request_order(
        requests,
        swap_files(files, settings=settings, journal_url=journal_url, name=name, own_work=own_work),
        swap_objects(objects, journal_url=journal_url, name=name, own_work=own_work),
    )


def _dry_run(requests: Sequence[R], settings: WriteSettings) -> list[SwapResult]:
    files, objects = _by_storage(requests)
    return _in_request_order(
        requests,
        dry_run_files(files, settings=settings, own_work={}),
        dry_run_objects(objects, own_work={}),
    )


def _by_storage(requests: Sequence[R]) -> tuple[list[Request], list[Request]]:
    files: list[Request] = [request for request in requests if not is_s3_url(request.url)]
    objects: list[Request] = [request for request in requests if is_s3_url(request.url)]
    return files, objects


def _in_request_order(
    requests: Sequence[R], files: Sequence[SwapResult], objects: Sequence[SwapResult]
) -> list[SwapResult]:
    of_files, of_objects = iter(files), iter(objects)
    return [next(of_objects if is_s3_url(request.url) else of_files) for request in requests]


def _own_work(journal_url: str, name: str) -> OwnWork:
    """Return the digests that earlier attempts at a batch were about to write, by URL."""
    digests: dict[str, set[bytes]] = {}
    for row in read_journal(journal_url, name):
        digests.setdefault(row["url"], set()).add(row["new_digest"])
    return digests
