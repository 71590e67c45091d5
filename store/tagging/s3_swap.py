"""Many S3 objects changed as one batch: what file_swap does for files, with a conditional put for a rename.

    each object is copied here, edited and compared
    the journal part is on disk; it names the version that the object was, where a bucket keeps versions
    each draft takes the place of its object, if that is still what was copied

A batch that died is completed by running it again under its name.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from store.errors import BadInput, ObjectChanged
from store.fs.s3_objects import StoredObject, download_object, is_credentials_error, put_if_unchanged
from store.tagging.byte_delta import make_delta
from store.tagging.journal import digest_file, write_entries
from store.tagging.swap import (
    MAX_GROUP_BYTES,
    MAX_GROUP_FILES,
    MAX_SUFFIX_CHARS,
    FileSkipped,
    PlannedChange,
    SwapJob,
    SwapResult,
    skipped_result,
)
from store.tags.write import translate_errors

REQUESTS_AT_ONCE = 8  # an answer takes long, and needs little of this machine


@dataclass(frozen=True)
class PreparedObject:
    """An object's next content, compared, and what the journal will say."""

    status: str
    path: Path
    was: StoredObject
    entry: Mapping[str, Any]


def is_s3_url(url: str) -> bool:
    """Say whether it is an S3 object, not a file on a disk."""
    return url.startswith("s3://")


def swap_objects(jobs: Sequence[SwapJob], *, journal_url: str, name: str) -> list[SwapResult]:
    """Change the objects of a batch, journalled under `name`, and tell what became of each.

    Raises: OSError if disk or store fails; every object is then whole, old or new, and the same call
        completes the batch.
    """
    outcomes: list[SwapResult] = []
    with (
        tempfile.TemporaryDirectory(prefix="spectrogram-one-") as folder,
        ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool,
    ):
        for group in _in_groups(_drafts(jobs, Path(folder), pool)):
            drafts = [made for made in group if isinstance(made, PreparedObject)]
            if drafts:
                write_entries(journal_url, name, [draft.entry for draft in drafts])
            became = pool.map(_put, drafts)
            outcomes += [next(became) if isinstance(made, PreparedObject) else made for made in group]
    return outcomes


def plan_objects(jobs: Sequence[SwapJob]) -> list[SwapResult]:
    """Tell what swapping would do, and touch nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="spectrogram-one-") as folder,
        ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool,
    ):
        return list(pool.map(partial(_look, folder=Path(folder)), jobs))


def _drafts(
    jobs: Sequence[SwapJob], folder: Path, pool: ThreadPoolExecutor
) -> Iterator[PreparedObject | SwapResult]:
    """Make drafts, some at a time, or tell in their places why there is none."""
    met: set[str] = set()
    for first in range(0, len(jobs), REQUESTS_AT_ONCE):
        some = jobs[first : first + REQUESTS_AT_ONCE]
        yield from pool.map(partial(_draft, folder=folder), _once_each(some, met))


def _once_each(jobs: Iterable[SwapJob], met: set[str]) -> Iterator[SwapJob]:
    for job in jobs:
        yield replace(job, plan=_refuse_second) if job.url in met else job
        met.add(job.url)


def _refuse_second(copy: Path, signature: str) -> PlannedChange:
    raise FileSkipped("same-file", "the object is in this batch already")


def _draft(job: SwapJob, folder: Path) -> PreparedObject | SwapResult:
    try:
        with _copied(job, folder) as (copy, was), translate_errors(job.url):
            return _edited(job, copy, was)
    except FileSkipped as why:
        return skipped_result(why)


def _edited(job: SwapJob, copy: Path, was: StoredObject) -> PreparedObject | SwapResult:
    plan = job.plan(copy, was.signature)
    if plan.write_draft is None:
        return SwapResult(plan.status, signature=was.signature)
    draft = _room_beside(copy)
    view = plan.write_draft(copy, draft)
    old_digest, new_digest = plan.digest or digest_file(copy), digest_file(draft)
    if new_digest == old_digest:
        draft.unlink()
        return SwapResult(plan.status, signature=was.signature)
    entry = {
        "track_id": job.track_id,
        "url": job.url,
        "old_digest": old_digest,
        "new_digest": new_digest,
        "delta": make_delta(draft, copy),
        "old_genres": view.genres,
        "old_custom_tags": view.custom_tags,
        "mtime_ns": None,
        "version": was.version_id,
    }
    return PreparedObject(plan.status, draft, was, entry)


def _look(job: SwapJob, folder: Path) -> SwapResult:
    try:
        with _copied(job, folder) as (copy, was), translate_errors(job.url):
            return SwapResult(job.plan(copy, was.signature).status)
    except FileSkipped as why:
        return skipped_result(why)


def _put(draft: PreparedObject) -> SwapResult:
    """Have a draft take the place of its object, if nobody changed that since it was copied."""
    try:
        with _reasons_told(draft.was.url):
            now = put_if_unchanged(draft.was.url, draft.path, draft.was)
    except FileSkipped as why:
        return skipped_result(why)
    finally:
        draft.path.unlink()
    return SwapResult(draft.status, signature=now.signature)


def _in_groups(made: Iterable[PreparedObject | SwapResult]) -> Iterator[list[PreparedObject | SwapResult]]:
    """Gather drafts until there are many, or they take much room."""
    group: list[PreparedObject | SwapResult] = []
    size = 0
    for one in made:
        group.append(one)
        size += one.path.stat().st_size if isinstance(one, PreparedObject) else 0
        if len(group) >= MAX_GROUP_FILES or size >= MAX_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _copied(job: SwapJob, folder: Path) -> Iterator[tuple[Path, StoredObject]]:
    """Give a copy of an object that lives as long as the block, named like it."""
    copy = _room_beside(folder / PurePosixPath(job.url).name)
    try:
        with _reasons_told(job.url):
            yield copy, download_object(job.url, copy)
    finally:
        copy.unlink(missing_ok=True)


def _room_beside(path: Path) -> Path:
    return path.with_name(f"{uuid4().hex}{path.suffix[:MAX_SUFFIX_CHARS]}")


@contextmanager
def _reasons_told(url: str) -> Iterator[None]:
    """Name the reason why an object cannot be changed; let a store that fails raise its OSError."""
    try:
        yield
    except ObjectChanged as why:
        raise FileSkipped("changed", "another writer changed the object meanwhile") from why
    except BadInput as why:
        raise FileSkipped("unsupported", str(why).removeprefix(f"{url}: ")) from why
    except PermissionError as why:
        if is_credentials_error(why):
            raise OSError(f"{url}: {why}") from why
        raise FileSkipped("no-permission", str(why)) from why
    except FileNotFoundError as why:
        raise FileSkipped("missing", "the object is gone") from why
