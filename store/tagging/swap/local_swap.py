"""Many files changed as one batch: drafts beside them, a journal on disk, then one rename each.

At every instant a file has its old bytes or its new ones, whole. A batch whose process died is cleaned up and
completed by running it again under its name. The order of the steps makes that safe:

    remove     the drafts of an earlier attempt
    plan       examine each file, and decide what is to become of it
    prepare    copy each into a hidden folder beside it, edit the copy, verify it, copy owner, mode and times
    journal    write the journal part, then the drafts, to disk
    swap       compare each file with its state when planned, and rename its draft over it
    sync       write the folders to disk
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from store.fs.disk_errors import naming, retry_if_stale
from store.fs.files import local_path, sync_to_disk
from store.fs.metadata import (
    Owner,
    copy_metadata,
    describe_lost_owner,
    is_unchanged,
    owner_name,
    owner_of,
    write_obstacle,
)
from store.fs.signatures import signature_from_stat
from store.tagging.swap.changes import Decision, FileSkipped, Request, decide
from store.tagging.swap.drafts import (
    DRAFT_PREFIX,
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
from store.tagging.swap.journal import digest_file, write_entries
from store.tagging.swap.settings import WriteSettings
from store.tags.write import resolve_audio_file, translate_errors

SYNC_THREADS = 8
ABANDONED_AFTER_S = 3_600
HELD_OPEN_CODES = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.ETXTBSY)


@dataclass(frozen=True)
class PlannedFile:
    """A file as it was when its batch was planned, and what it is to become."""

    number: int
    request: Request
    real: Path
    before: os.stat_result
    decision: Decision


@dataclass(frozen=True)
class FileDraft(Draft):
    """The next content of a file in the hidden folder beside it."""

    real: Path
    before: os.stat_result
    lost_owner: Owner | None = None  # whom the file should belong to, and does not


@dataclass
class _Attempt:
    """One attempt at a batch: how it writes, the folders it made and changed, the results so far."""

    settings: WriteSettings
    token: str  # the same for all attempts at this batch
    mark: str  # of this attempt's drafts
    folders: set[Path] = field(default_factory=set)
    touched: set[Path] = field(default_factory=set)
    results: dict[int, SwapResult] = field(default_factory=dict)
    holds_open: bool = True  # until a disk refuses to replace a file that is open


def swap_files(
    requests: Sequence[Request], *, settings: WriteSettings, journal_url: str, name: str, own_work: OwnWork
) -> list[SwapResult]:
    """Change the files of a batch, journalled under `name`, and return what became of each.

    Raises: OSError if a disk is full or fails; every file is then whole, old or new, no draft is
        left, and the same call completes the batch.
    """
    attempt = _Attempt(settings, _token(journal_url, name), uuid4().hex[:12])
    real_paths = (Path(os.path.realpath(_local(request.url))) for request in requests)
    _remove_drafts({_draft_folder(real, attempt) for real in real_paths}, mark="")
    plans = plan_files(requests, settings=settings, own_work=own_work)
    try:
        for drafts in in_groups(_prepare_each(plans, attempt)):
            write_entries(journal_url, name, [draft.entry for draft in drafts])
            _sync_all([draft.path for draft in drafts])
            with _held_open([draft.real for draft in drafts], attempt) as handles:
                for draft in drafts:
                    attempt.results[draft.number] = _swap(draft, attempt, handles)
        for folder in sorted(attempt.touched):
            sync_to_disk(folder)
    finally:
        _remove_drafts(attempt.folders, mark=attempt.mark)
    return [attempt.results[number] for number in range(len(requests))]


def dry_run_files(
    requests: Sequence[Request], *, settings: WriteSettings, own_work: OwnWork
) -> list[SwapResult]:
    """Return what `swap_files` would report, and touch nothing."""
    plans = plan_files(requests, settings=settings, own_work=own_work)
    return [plan if isinstance(plan, SwapResult) else SwapResult(plan.decision.status) for plan in plans]


def plan_files(
    requests: Sequence[Request], *, settings: WriteSettings, own_work: OwnWork
) -> list[PlannedFile | SwapResult]:
    """Examine each file and decide what it is to become; return the result at once where it is left alone."""
    plans: list[PlannedFile | SwapResult] = []
    seen: set[Path] = set()
    for number, request in enumerate(requests):
        try:
            with skip_if_unusable(request.url), translate_errors(request.url):
                plans.append(_plan_file(number, request, settings, own_work, seen))
        except FileSkipped as why:
            plans.append(skipped_result(why))
    return plans


def _plan_file(
    number: int, request: Request, settings: WriteSettings, own_work: OwnWork, seen: set[Path]
) -> PlannedFile:
    real = resolve_audio_file(_local(request.url))
    before = real.stat()
    if real in seen:
        raise FileSkipped("same-file", f"a link to {real}, which is in this batch already")
    seen.add(real)
    decision = decide(request, real, signature_from_stat(before), own_work.get(request.url, ()))
    if decision.change is not None:
        is_given_back = decision.owner is not None and decision.owner[0] == os.geteuid()
        may_change = settings.owner == "change" or is_given_back
        obstacle = write_obstacle(real, before, may_change_owner=may_change)
        if obstacle is not None:
            raise FileSkipped(*obstacle)
        if before.st_nlink > 1 and settings.hard_links == "refuse":
            names = f"the file has {before.st_nlink} names (hard links)"
            raise FileSkipped("hard-linked", f"{names}: have the links broken to tag this one")
    return PlannedFile(number, request, real, before, decision)


def _prepare_each(plans: Sequence[PlannedFile | SwapResult], attempt: _Attempt) -> Iterator[FileDraft]:
    """Yield the drafts one after another, and record the results of files that need none."""
    for number, plan in enumerate(plans):
        result = plan if isinstance(plan, SwapResult) else _prepare(plan, attempt)
        if isinstance(result, FileDraft):
            yield result
        else:
            attempt.results[number] = result


def _prepare(plan: PlannedFile, attempt: _Attempt) -> FileDraft | SwapResult:
    signature = signature_from_stat(plan.before)
    if plan.decision.change is None:
        attempt.touched.add(plan.real.parent)  # an attempt that died may not have synced it
        return SwapResult(plan.decision.status, signature=signature, old_signature=signature)
    try:
        with skip_if_unusable(plan.request.url), translate_errors(plan.request.url):
            draft = _write_file_draft(plan, attempt)
        same = identical_result(plan.decision)
        return draft or replace(same, signature=signature, old_signature=signature)
    except FileSkipped as why:
        return skipped_result(why)


def _write_file_draft(plan: PlannedFile, attempt: _Attempt) -> FileDraft | None:
    if not is_unchanged(plan.before, plan.real.stat()):
        raise FileSkipped("changed", "another program changed the file meanwhile")
    with naming(plan.real), _draft_path(plan.real, attempt) as path:
        # A time after 2262 is not journalled, since it fills 64 bits: an undo then keeps what the file has.
        old_mtime_ns = plan.before.st_mtime_ns if plan.before.st_mtime_ns < 1 << 63 else None
        entry = write_draft(plan.request, plan.decision, plan.real, path, mtime_ns=old_mtime_ns, version=None)
        if entry is None:
            return None
        mtime_ns = plan.decision.mtime_ns
        if mtime_ns is None and attempt.settings.mtime == "now":
            mtime_ns = path.stat().st_mtime_ns
        _copy_metadata(plan, path, attempt.settings, mtime_ns)  # last: reading moves atime
        old, new = owner_of(plan.before), owner_of(path.stat())
    if new != old:
        entry |= {"old_owner": old, "new_owner": new}
    wanted = plan.decision.owner or old
    lost = wanted if new != wanted else None
    return FileDraft(plan.number, plan.decision.status, path, entry, plan.real, plan.before, lost)


def _copy_metadata(plan: PlannedFile, draft: Path, settings: WriteSettings, mtime_ns: int | None) -> None:
    """Copy the metadata of a file to its draft. Raises: FileSkipped if its owner must be kept and cannot."""
    owner, former = settings.owner, plan.decision.owner
    try:
        copy_metadata(plan.real, draft, plan.before, owner=owner, former_owner=former, mtime_ns=mtime_ns)
    except PermissionError as why:  # of a share that does not let root give files away, for example
        raise FileSkipped("other-owner", describe_lost_owner(owner_of(plan.before))) from why


def _swap(draft: FileDraft, attempt: _Attempt, handles: dict[Path, int]) -> SwapResult:
    """Rename a draft over its file, if that is still what it was when planned."""
    try:
        with skip_if_unusable(str(draft.real)), translate_errors(draft.real):
            now = retry_if_stale(draft.real.stat)
            if not is_unchanged(draft.before, now):
                if digest_file(draft.real) == draft.entry["new_digest"]:  # by another attempt at this batch
                    return _result(draft.status, draft.before, now)
                raise FileSkipped("changed", "another program changed the file meanwhile")
            attempt.touched.add(draft.real.parent)
            _replace(draft, attempt, handles)
            result = _result(draft.status, draft.before, draft.real.stat())
            if draft.lost_owner is not None:
                detail = f"it belonged to {owner_name(draft.lost_owner)} and now belongs to this user"
                return replace(result, reason="new-owner", detail=detail)
            return result
    except FileSkipped as why:
        return skipped_result(why)


def _replace(draft: FileDraft, attempt: _Attempt, handles: dict[Path, int]) -> None:
    """Rename a draft over its file; where a disk refuses that for an open file, such as SMB, close it first.

    Raises: FileSkipped if another program holds the file open there.
    """
    try:
        retry_if_stale(os.replace, draft.path, draft.real)
        return
    except OSError as why:
        if why.errno not in HELD_OPEN_CODES:
            raise
        refusal = why
    handle = handles.pop(draft.real, None)
    if handle is not None:
        attempt.holds_open = False  # for the next group
        os.close(handle)
        try:
            os.replace(draft.path, draft.real)
            return
        except OSError as why:
            if why.errno not in HELD_OPEN_CODES:
                raise
            refusal = why
    detail = f"it cannot be replaced ({refusal.strerror}): another program may hold it open, close that and try again"
    raise FileSkipped("no-permission", detail) from refusal


def _result(status: str, before: os.stat_result, now: os.stat_result) -> SwapResult:
    return SwapResult(status, signature=signature_from_stat(now), old_signature=signature_from_stat(before))


@contextmanager
def _held_open(paths: Sequence[Path], attempt: _Attempt) -> Iterator[dict[Path, int]]:
    """Keep the old files open while they are replaced, and close all at once.

    A disk takes some milliseconds to free a file: so the swaps do not wait for that, nor for each other.
    """
    handles: dict[Path, int] = {}
    for path in paths if attempt.holds_open else ():
        with suppress(OSError):  # if something is wrong with the file, its swap reports it
            handles[path] = os.open(path, os.O_RDONLY)
    try:
        yield handles
    finally:
        with ThreadPoolExecutor(SYNC_THREADS) as pool:
            list(pool.map(os.close, handles.values()))


def _sync_all(paths: Sequence[Path]) -> None:
    """Write all these files to disk.

    Each is synced on its own, several at a time, since a disk combines the syncs that wait for it: 0.3 ms a
    file where one after the other took 2.7, on a disk that others use too. A sync of the whole file
    system would take 0.2, but wait for whatever others write.
    """
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(sync_to_disk, paths))


@contextmanager
def _draft_path(real: Path, attempt: _Attempt) -> Iterator[Path]:
    """Yield a path beside a file for its draft; if the block raises, nothing is left there.

    No other attempt uses that path: one whose worker was believed dead may still be running.
    """
    folder = _draft_folder(real, attempt)
    if folder not in attempt.folders:
        folder.mkdir(0o700, exist_ok=True)
        attempt.folders.add(folder)
        _remove_abandoned_drafts(folder)
    path = folder / f"{attempt.mark}{uuid4().hex[:12]}{real.suffix[:MAX_SUFFIX_CHARS]}"
    try:
        yield path
    except BaseException:  # an interrupt too: it is raised again
        path.unlink(missing_ok=True)
        raise


def _draft_folder(real: Path, attempt: _Attempt) -> Path:
    return real.parent / f"{DRAFT_PREFIX}{attempt.token}"


def _token(journal_url: str, name: str) -> str:
    """Return what names the drafts of a batch; of its run too, since another run may work on the same files."""
    return hashlib.blake2b(f"{journal_url}/{name}".encode(), digest_size=6).hexdigest()


def _local(url: str) -> Path:
    path = local_path(url)
    assert path is not None, "files on this machine's disks only"
    return path


def sweep_drafts(urls: Iterable[str], *, journal_url: str, name: str) -> None:
    """Remove the drafts of a batch that was killed, beside these files."""
    folders = {Path(os.path.realpath(_local(url))).parent for url in urls if local_path(url) is not None}
    _remove_drafts((folder / f"{DRAFT_PREFIX}{_token(journal_url, name)}" for folder in folders), mark="")


def _remove_abandoned_drafts(own_folder: Path) -> None:
    """Remove the drafts beside a new folder of drafts into which nothing was written for an hour.

    Their run was killed, and nobody resumed it. Should it live on, it repeats its batch. The time of the new folder
    is the present one by the clock of that disk.
    """
    latest = own_folder.stat().st_mtime - ABANDONED_AFTER_S
    with suppress(FileNotFoundError, PermissionError), os.scandir(own_folder.parent) as entries:
        old = [Path(it) for it in entries if it.name.startswith(DRAFT_PREFIX) and it.stat().st_mtime < latest]
        _remove_drafts(old, mark="")


def _remove_drafts(folders: Iterable[Path], *, mark: str) -> None:
    """Remove the drafts whose names start with `mark`, and folders that are empty then."""
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
