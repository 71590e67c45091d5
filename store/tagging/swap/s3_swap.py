"""Many S3 objects changed as one batch: the steps of local_swap, with a conditional put for a rename.

    plan       download each object, and decide what is to become of it
    prepare    edit the copy, and verify it
    journal    write the journal part to disk; it names the version that the object was, if the bucket keeps versions
    swap       put each draft, if the object is still what was downloaded

A batch whose process died is completed by running it again under its name.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from store.fs.files import last_part
from store.fs.s3_objects import StoredObject, download_object, put_if_unchanged
from store.tagging.swap.changes import FileSkipped, Request, decide
from store.tagging.swap.drafts import (
    MAX_SUFFIX_CHARS,
    Draft,
    OwnWork,
    SwapResult,
    identical_result,
    in_groups,
    skip_if_unusable,
    skipped_result,
    write_draft,
)
from store.tagging.swap.journal import write_entries
from store.tags.write import translate_errors

CONCURRENT_REQUESTS = 8  # a response takes long, and needs little of this machine
Numbered = tuple[int, Request]


@dataclass(frozen=True)
class ObjectDraft(Draft):
    """The next content of an object, in a temporary folder of this machine."""

    was: StoredObject


def is_s3_url(url: str) -> bool:
    """Return whether a URL names an S3 object, not a local file."""
    return url.startswith("s3://")


def swap_objects(
    requests: Sequence[Request], *, journal_url: str, name: str, own_work: OwnWork
) -> list[SwapResult]:
    """Change the objects of a batch, journalled under `name`, and return what became of each.

    Raises: OSError if disk or store fails; every object is then whole, old or new, and the same call
        completes the batch.
    """
    results: dict[int, SwapResult] = {}
    with _workspace() as (folder, pool):
        for drafts in in_groups(_prepare_each(requests, results, folder, pool, own_work)):
            write_entries(journal_url, name, [draft.entry for draft in drafts])
            swapped = pool.map(_swap, drafts)
            results |= {draft.number: result for draft, result in zip(drafts, swapped, strict=True)}
    return [results[number] for number in range(len(requests))]


def dry_run_objects(requests: Sequence[Request], *, own_work: OwnWork) -> list[SwapResult]:
    """Return what `swap_objects` would report, and touch nothing."""
    with _workspace() as (folder, pool):
        return list(pool.map(partial(_dry_run, folder=folder, own_work=own_work), requests))


@contextmanager
def _workspace() -> Iterator[tuple[Path, ThreadPoolExecutor]]:
    with (
        tempfile.TemporaryDirectory(prefix="spectrogram-one-") as folder,
        ThreadPoolExecutor(CONCURRENT_REQUESTS) as pool,
    ):
        yield Path(folder), pool


def _prepare_each(
    requests: Sequence[Request],
    results: dict[int, SwapResult],
    folder: Path,
    pool: ThreadPoolExecutor,
    own_work: OwnWork,
) -> Iterator[ObjectDraft]:
    """Yield the drafts, made some at a time, and record the results of objects that need none."""
    distinct = list(_distinct(requests, results))
    for first in range(0, len(distinct), CONCURRENT_REQUESTS):
        some = distinct[first : first + CONCURRENT_REQUESTS]
        prepared = pool.map(partial(_plan_and_prepare, folder=folder, own_work=own_work), some)
        for (number, _), result in zip(some, prepared, strict=True):
            if isinstance(result, ObjectDraft):
                yield result
            else:
                results[number] = result


def _distinct(requests: Sequence[Request], results: dict[int, SwapResult]) -> Iterator[Numbered]:
    seen: set[str] = set()
    for number, request in enumerate(requests):
        if request.url in seen:
            results[number] = SwapResult("skipped", "same-file", "the object is in this batch already")
        else:
            seen.add(request.url)
            yield number, request


def _plan_and_prepare(numbered: Numbered, folder: Path, own_work: OwnWork) -> ObjectDraft | SwapResult:
    number, request = numbered
    try:
        with _downloaded(request, folder) as (copy, was), translate_errors(request.url):
            decision = decide(request, copy, was.signature, own_work.get(request.url, ()))
            if decision.change is None:
                return SwapResult(decision.status, signature=was.signature, old_signature=was.signature)
            draft = _unique_path(copy)
            entry = write_draft(request, decision, copy, draft, mtime_ns=None, version=was.version_id)
            if entry is None:
                same = identical_result(decision)
                return replace(same, signature=was.signature, old_signature=was.signature)
            return ObjectDraft(number, decision.status, draft, entry, was)
    except FileSkipped as why:
        return skipped_result(why)


def _dry_run(request: Request, folder: Path, own_work: OwnWork) -> SwapResult:
    try:
        with _downloaded(request, folder) as (copy, was), translate_errors(request.url):
            return SwapResult(decide(request, copy, was.signature, own_work.get(request.url, ())).status)
    except FileSkipped as why:
        return skipped_result(why)


def _swap(draft: ObjectDraft) -> SwapResult:
    """Replace an object by its draft, if no other writer changed it since it was downloaded."""
    try:
        with skip_if_unusable(draft.was.url):
            now = put_if_unchanged(draft.was.url, draft.path, draft.was)
    except FileSkipped as why:
        return skipped_result(why)
    finally:
        draft.path.unlink()
    return SwapResult(draft.status, signature=now.signature, old_signature=draft.was.signature)


@contextmanager
def _downloaded(request: Request, folder: Path) -> Iterator[tuple[Path, StoredObject]]:
    """Yield a copy of an object that exists for the length of the block, with the object's suffix."""
    copy = _unique_path(folder / last_part(request.url))
    try:
        with skip_if_unusable(request.url):
            yield copy, download_object(request.url, copy)
    finally:
        copy.unlink(missing_ok=True)


def _unique_path(path: Path) -> Path:
    return path.with_name(f"{uuid4().hex}{path.suffix[:MAX_SUFFIX_CHARS]}")
