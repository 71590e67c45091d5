"""Many files changed as one batch: drafts beside them, a journal on disk, then one rename each.

At every instant a file has its old bytes or its new ones, whole. A batch that died is swept and
completed by running it again under its name. The order of things is the safety:

    the drafts of an earlier attempt go away
    each file is copied into a hidden folder beside it, edited there, compared and dressed
    the journal part, then the drafts, are on disk
    a last look at each file, and its draft takes its place
    each folder is on disk
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from store.errors import BadInput
from store.fs.files import local_path, sync_to_disk
from store.fs.stream import signature_from_stat
from store.tagging.byte_delta import make_delta
from store.tagging.journal import digest_file, write_entries
from store.tagging.settings import WriteSettings
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
from store.tags.write import copy_metadata, is_read_only, is_unchanged, resolve_audio_file, translate_errors

DRAFT_PREFIX = ".spectrogram-one-"  # of the hidden folders; a listing of music leaves them out
OF_ONE_FILE = (errno.EBUSY, errno.EXDEV, errno.ENAMETOOLONG)  # mounted by itself; its path at its longest
THREADS = 8  # that wait for a disk


@dataclass(frozen=True)
class PreparedFile:
    """A file's next content, compared and dressed, and what the journal will say."""

    number: int
    status: str
    path: Path
    real: Path
    before: os.stat_result
    entry: Mapping[str, Any]


@dataclass
class BatchState:
    """One attempt at a batch: how it is to be done, what it made and met, what became of each file."""

    settings: WriteSettings
    token: str  # the same for all attempts at this batch
    mark: str  # of this attempt's drafts
    folders: set[Path] = field(default_factory=set)
    met: set[Path] = field(default_factory=set)
    touched: set[Path] = field(default_factory=set)
    outcomes: dict[int, SwapResult] = field(default_factory=dict)


def swap_files(
    jobs: Sequence[SwapJob], *, settings: WriteSettings, journal_url: str, name: str
) -> list[SwapResult]:
    """Change the files of a batch, journalled under `name`, and tell what became of each.

    Raises: OSError if a disk is full or fails; every file is then whole, old or new, no draft is
    left, and the same call completes the batch.
    """
    batch = f"{journal_url}/{name}".encode()  # of this run: another may be at work on the same files
    attempt = BatchState(settings, hashlib.blake2b(batch, digest_size=6).hexdigest(), uuid4().hex[:12])
    folders = {_draft_folder(Path(os.path.realpath(_local(job.url))), attempt) for job in jobs}
    _sweep(folders, mark="")
    try:
        for drafts in _in_groups(_drafts(jobs, attempt)):
            write_entries(journal_url, name, [draft.entry for draft in drafts])
            _sync_all([draft.path for draft in drafts])
            with _held_open([draft.real for draft in drafts]):
                for draft in drafts:
                    attempt.outcomes[draft.number] = _swap(draft, attempt)
        for folder in sorted(attempt.touched):
            sync_to_disk(folder)
    finally:
        _sweep(attempt.folders, mark=attempt.mark)
    return [attempt.outcomes[number] for number in range(len(jobs))]


def plan_files(jobs: Sequence[SwapJob], *, settings: WriteSettings) -> list[SwapResult]:
    """Tell what swapping would do, and touch nothing."""
    met: set[Path] = set()
    outcomes = []
    for job in jobs:
        try:
            with _reasons_told(job.url):
                _, _, plan = _look(job, settings, met)
            outcomes.append(SwapResult(plan.status))
        except FileSkipped as why:
            outcomes.append(skipped_result(why))
    return outcomes


def _drafts(jobs: Sequence[SwapJob], attempt: BatchState) -> Iterator[PreparedFile]:
    """Make the drafts one after another, and note what needs none."""
    for number, job in enumerate(jobs):
        try:
            with _reasons_told(job.url):
                made = _draft(number, job, attempt)
        except FileSkipped as why:
            made = skipped_result(why)
        if isinstance(made, PreparedFile):
            yield made
        else:
            attempt.outcomes[number] = made


def _draft(number: int, job: SwapJob, attempt: BatchState) -> PreparedFile | SwapResult:
    real, before, plan = _look(job, attempt.settings, attempt.met)
    if plan.write_draft is None:
        attempt.touched.add(real.parent)  # an attempt that died may not have come to sync it
        return SwapResult(plan.status, signature=signature_from_stat(before))
    with _room_for_draft(real, attempt) as path:
        old_digest = plan.digest or digest_file(real)
        view = plan.write_draft(real, path)
        new_digest = digest_file(path)
        if new_digest == old_digest:
            path.unlink()
            return SwapResult(plan.status, signature=signature_from_stat(before))
        mtime_ns = plan.mtime_ns
        if mtime_ns is None and attempt.settings.mtime == "now":
            mtime_ns = path.stat().st_mtime_ns
        entry = {
            "track_id": job.track_id,
            "url": job.url,
            "old_digest": old_digest,
            "new_digest": new_digest,
            "delta": make_delta(path, real),
            "old_genres": view.genres,
            "old_custom_tags": view.custom_tags,
            "mtime_ns": before.st_mtime_ns,
            "version": None,
        }
        copy_metadata(real, path, before, mtime_ns=mtime_ns)  # last: reading moves the time of access
    return PreparedFile(number, plan.status, path, real, before, entry)


def _look(
    job: SwapJob, settings: WriteSettings, met: set[Path]
) -> tuple[Path, os.stat_result, PlannedChange]:
    """Look at a file before anything is done. Raises: FileSkipped."""
    real = resolve_audio_file(_local(job.url))
    before = real.stat()
    if real in met:
        raise FileSkipped("same-file", f"a link to {real}, which is in this batch already")
    met.add(real)
    plan = job.plan(real, signature_from_stat(before))
    if plan.write_draft is not None:
        if is_read_only(real, before):
            raise FileSkipped("read-only", "the file is read-only: make it writable to have it tagged")
        if before.st_nlink > 1 and settings.hard_links == "refuse":
            names = f"the file has {before.st_nlink} names (hard links)"
            raise FileSkipped("hard-linked", f"{names}: have the links broken to tag this one")
    return real, before, plan


def _in_groups(drafts: Iterable[PreparedFile]) -> Iterator[list[PreparedFile]]:
    """Gather drafts until there are many, or they take much room."""
    group: list[PreparedFile] = []
    size = 0
    for draft in drafts:
        group.append(draft)
        size += draft.path.stat().st_size
        if len(group) >= MAX_GROUP_FILES or size >= MAX_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _swap(draft: PreparedFile, attempt: BatchState) -> SwapResult:
    """Have a draft take the place of its file, if that is still what it was."""
    try:
        with _reasons_told(str(draft.real)):
            now = draft.real.stat()
            if not is_unchanged(draft.before, now):
                if digest_file(draft.real) == draft.entry["new_digest"]:  # by another attempt at this batch
                    return SwapResult(draft.status, signature=signature_from_stat(now))
                raise FileSkipped("changed", "another program changed the file meanwhile")
            attempt.touched.add(draft.real.parent)
            os.replace(draft.path, draft.real)
            return SwapResult(draft.status, signature=signature_from_stat(draft.real.stat()))
    except FileSkipped as why:
        return skipped_result(why)


@contextmanager
def _held_open(paths: Sequence[Path]) -> Iterator[None]:
    """Keep the old files open while they are replaced, and let go of all at once.

    A disk takes some milliseconds to free a file: the swaps need not wait for that, nor one for another.
    """
    handles: list[int] = []
    for path in paths:
        with suppress(OSError):  # if something is wrong with the file, its swap will tell
            handles.append(os.open(path, os.O_RDONLY))
    try:
        yield
    finally:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(os.close, handles))


def _sync_all(paths: Sequence[Path]) -> None:
    """Have the disk hold all these files.

    Each is synced on its own, several at a time, since a disk makes one commit of what waits for it: 0.3 ms a
    file where one after the other took 2.7, on a disk that others use too. A sync of the whole file
    system would take 0.2, but wait for whatever others write.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(sync_to_disk, paths))


@contextmanager
def _room_for_draft(real: Path, attempt: BatchState) -> Iterator[Path]:
    """Give a path beside a file for its draft; if the block raises, nothing is left there.

    No other attempt uses that path: one whose worker was believed dead may still be at work.
    """
    folder = _draft_folder(real, attempt)
    if folder not in attempt.folders:
        folder.mkdir(0o700, exist_ok=True)
        attempt.folders.add(folder)
    path = folder / f"{attempt.mark}{uuid4().hex[:12]}{real.suffix[:MAX_SUFFIX_CHARS]}"
    try:
        yield path
    except BaseException:  # an interrupt too: it is raised again
        path.unlink(missing_ok=True)
        raise


def _draft_folder(real: Path, attempt: BatchState) -> Path:
    return real.parent / f"{DRAFT_PREFIX}{attempt.token}"


def _local(url: str) -> Path:
    path = local_path(url)
    assert path is not None, "files on this machine's disks only"
    return path


def _sweep(folders: Iterable[Path], *, mark: str) -> None:
    """Take away the drafts whose names start with `mark`, and folders that are empty then."""
    for folder in folders:
        # PermissionError: then no draft can be made there either, and its files are skipped.
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            names = os.listdir(folder)
            for name in names:
                if name.startswith(mark):
                    (folder / name).unlink(missing_ok=True)
            if all(name.startswith(mark) for name in names):
                with suppress(OSError):  # another attempt has just put a draft there
                    folder.rmdir()


@contextmanager
def _reasons_told(url: str) -> Iterator[None]:
    """Name the reason why a file cannot be changed; let a failing disk raise its OSError."""
    try:
        with translate_errors(url):
            yield
    except BadInput as why:
        raise FileSkipped("unsupported", str(why).removeprefix(f"{url}: ")) from why
    except PermissionError as why:
        where = Path(why.filename or url)
        where = next((it.parent for it in (where, *where.parents) if it.name.startswith(DRAFT_PREFIX)), where)
        raise FileSkipped("no-permission", f"{where}: {why.strerror}") from why
    except (FileNotFoundError, NotADirectoryError) as why:
        if _local(url).exists():
            raise  # its draft is gone: another attempt at this batch swept it
        raise FileSkipped("missing", "the file is gone") from why
    except OSError as why:
        if why.errno == errno.ELOOP:
            raise FileSkipped("missing", "its link leads in a circle") from why
        if why.errno in OF_ONE_FILE:
            raise FileSkipped("unsupported", f"the file cannot be replaced: {why.strerror}") from why
        raise
