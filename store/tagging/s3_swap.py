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
from store.fs.s3_objects import StoredObject, concerns_all_objects, put_if_unchanged, read_object
from store.tagging.byte_delta import make_delta
from store.tagging.journal import digest_file, write_part
from store.tagging.swap import (
    BYTES_AT_ONCE,
    DRAFTS_AT_ONCE,
    MOST_SUFFIX,
    FileSkipped,
    Job,
    Outcome,
    Plan,
    left_alone,
)
from store.tags.write import clear_line

REQUESTS_AT_ONCE = 8  # an answer takes long, and needs little of this machine


@dataclass(frozen=True)
class Draft:
    """An object's next content, compared, and what the journal will say."""

    status: str
    path: Path
    was: StoredObject
    entry: Mapping[str, Any]


def is_object(url: str) -> bool:
    """Say whether it is an S3 object, not a file on a disk."""
    return url.startswith("s3://")


def swap_objects(jobs: Sequence[Job], *, journal_url: str, name: str) -> list[Outcome]:
    """Change the objects of a batch, journalled under `name`, and tell what became of each.

    Raises: OSError if disk or store fails; every object is then whole, old or new, and the same call
        completes the batch.
    """
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="spectrogram-one-") as folder,
        ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool,
    ):
        for group in _in_groups(_drafts(jobs, Path(folder), pool)):
            drafts = [made for made in group if isinstance(made, Draft)]
            if drafts:
                write_part(journal_url, name, [draft.entry for draft in drafts])
            became = pool.map(_put, drafts)
            outcomes += [next(became) if isinstance(made, Draft) else made for made in group]
    return outcomes


def look_at_objects(jobs: Sequence[Job]) -> list[Outcome]:
    """Tell what swapping would do, and touch nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="spectrogram-one-") as folder,
        ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool,
    ):
        return list(pool.map(partial(_look, folder=Path(folder)), jobs))


def _drafts(jobs: Sequence[Job], folder: Path, pool: ThreadPoolExecutor) -> Iterator[Draft | Outcome]:
    """Make drafts, some at a time, or tell in their places why there is none."""
    met: set[str] = set()
    for first in range(0, len(jobs), REQUESTS_AT_ONCE):
        some = jobs[first : first + REQUESTS_AT_ONCE]
        yield from pool.map(partial(_draft, folder=folder), _once_each(some, met))


def _once_each(jobs: Iterable[Job], met: set[str]) -> Iterator[Job]:
    for job in jobs:
        yield replace(job, look=_refuse_second) if job.url in met else job
        met.add(job.url)


def _refuse_second(copy: Path, signature: str) -> Plan:
    raise FileSkipped("same-file", "the object is in this batch already")


def _draft(job: Job, folder: Path) -> Draft | Outcome:
    try:
        with _copied(job, folder) as (copy, was), clear_line(job.url):
            return _edited(job, copy, was)
    except FileSkipped as why:
        return left_alone(why)


def _edited(job: Job, copy: Path, was: StoredObject) -> Draft | Outcome:
    plan = job.look(copy, was.signature)
    if plan.make is None:
        return Outcome(plan.status, signature=was.signature)
    draft = _room_beside(copy)
    view = plan.make(copy, draft)
    old_digest, new_digest = plan.digest or digest_file(copy), digest_file(draft)
    if new_digest == old_digest:
        draft.unlink()
        return Outcome(plan.status, signature=was.signature)
    entry = {
        "track_id": job.track_id,
        "url": job.url,
        "old_digest": old_digest,
        "new_digest": new_digest,
        "delta": make_delta(draft, copy),
        "old_genres": view.genres,
        "old_notes": view.notes,
        "mtime_ns": None,
        "version": was.version_id,
    }
    return Draft(plan.status, draft, was, entry)


def _look(job: Job, folder: Path) -> Outcome:
    try:
        with _copied(job, folder) as (copy, was), clear_line(job.url):
            return Outcome(job.look(copy, was.signature).status)
    except FileSkipped as why:
        return left_alone(why)


def _put(draft: Draft) -> Outcome:
    """Have a draft take the place of its object, if nobody changed that since it was copied."""
    try:
        with _reasons_told(draft.was.url):
            now = put_if_unchanged(draft.was.url, draft.path, draft.was)
    except FileSkipped as why:
        return left_alone(why)
    finally:
        draft.path.unlink()
    return Outcome(draft.status, signature=now.signature)


def _in_groups(made: Iterable[Draft | Outcome]) -> Iterator[list[Draft | Outcome]]:
    """Gather drafts until there are many, or they take much room."""
    group: list[Draft | Outcome] = []
    size = 0
    for one in made:
        group.append(one)
        size += one.path.stat().st_size if isinstance(one, Draft) else 0
        if len(group) >= DRAFTS_AT_ONCE or size >= BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def _copied(job: Job, folder: Path) -> Iterator[tuple[Path, StoredObject]]:
    """Give a copy of an object that lives as long as the block, named like it."""
    copy = _room_beside(folder / PurePosixPath(job.url).name)
    try:
        with _reasons_told(job.url):
            yield copy, read_object(job.url, copy)
    finally:
        copy.unlink(missing_ok=True)


def _room_beside(path: Path) -> Path:
    return path.with_name(f"{uuid4().hex}{path.suffix[:MOST_SUFFIX]}")


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
        if concerns_all_objects(why):
            raise OSError(f"{url}: {why}") from why
        raise FileSkipped("no-permission", str(why)) from why
    except FileNotFoundError as why:
        raise FileSkipped("missing", "the object is gone") from why
