"""What writing would refuse, found without writing: each edit is made on a copy in memory, of what it concerns.

A file is examined in a few milliseconds, however large it is: so of a long MP3 only its tags and the audio beside them
are copied, and of other long files only the structure is checked.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from store.fs.files import local_path
from store.tagging.swap.changes import FileSkipped, Retag, TagRequest
from store.tagging.swap.drafts import DRAFT_PREFIX, SwapResult, check_genres, skip_if_unusable, skipped_result
from store.tagging.swap.local_swap import PlannedFile, plan_files
from store.tagging.swap.settings import WriteSettings
from store.tags.formats import detect_tag_format
from store.tags.payload import end_of_leading_tags, start_of_trailing_tags
from store.tags.write import check_taggable, translate_errors, write_tagged_copy

MEMORY = "/dev/shm"
MAX_WHOLE_BYTES = 1 << 20  # of a file that is edited as a whole
AUDIO_BYTES = 1 << 16  # of the audio kept at both ends of a longer one
DRAFT_NAME_CHARS = 24  # before the suffix
MOUNTS = Path("/proc/self/mountinfo")


def rehearse_writing(
    rows: Sequence[Mapping[str, Any]], settings: WriteSettings
) -> list[tuple[str, str | None] | None]:
    """Return reason and detail for each row of PREDICTIONS_SCHEMA whose file writing would skip; None for others.

    Nothing but a folder in memory is written. Objects in a bucket are not examined.
    """
    results: list[tuple[str, str | None] | None] = [None] * len(rows)
    local = [number for number, row in enumerate(rows) if local_path(row["url"]) is not None]
    requests = [TagRequest(rows[number]["track_id"], rows[number]["url"], rows[number]) for number in local]
    mounted = _mounted_files()
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        for number, plan in zip(local, plan_files(requests, settings=settings, own_work={}), strict=True):
            result = plan if isinstance(plan, SwapResult) else _rehearse(plan, Path(folder), mounted)
            if result is not None and result.status == "skipped":
                results[number] = result.reason or "", result.detail
    return results


def _rehearse(plan: PlannedFile, folder: Path, mounted: set[str]) -> SwapResult | None:
    try:
        with skip_if_unusable(plan.request.url), translate_errors(plan.request.url):
            _check_replacing(plan.real, mounted)
            if isinstance(plan.decision.change, Retag):
                _try_edit(plan.real, plan.decision.change, folder)
    except FileSkipped as why:
        return skipped_result(why)
    return None


def _try_edit(real: Path, change: Retag, folder: Path) -> None:
    """Make an edit in a folder in memory. Raises: BadInput, FileSkipped as writing does."""
    with _part_to_edit(real, folder) as source:
        if source is None:
            check_taggable(real)
        else:
            check_genres(change, write_tagged_copy(source, folder / f"draft{real.suffix[:16]}", change.edit))


@contextmanager
def _part_to_edit(real: Path, folder: Path) -> Iterator[Path | None]:
    """Yield a file with the tags of `real`: itself if it is short, else a shorter one; None if neither is cheap."""
    size = real.stat().st_size
    if size <= MAX_WHOLE_BYTES:
        yield real
        return
    if detect_tag_format(real) != "id3":
        yield None
        return
    with real.open("rb") as file:
        start, end = end_of_leading_tags(file) + AUDIO_BYTES, start_of_trailing_tags(file) - AUDIO_BYTES
        file.seek(0)
        content = file.read(max(start, 0))
        file.seek(max(end, start))
        content += file.read()
    part = folder / f"part{real.suffix[:16]}"
    part.write_bytes(content)
    try:
        yield part
    finally:
        part.unlink()


def _check_replacing(real: Path, mounted: set[str]) -> None:
    """Raise the OSError with which no draft can be made beside a file, or a draft cannot replace it."""
    with suppress(FileNotFoundError):
        _draft_path(real).lstat()  # a path that is too long raises another error
    if str(real) in mounted:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(real))


def _draft_path(real: Path) -> Path:
    """Return a path as long as that of a draft."""
    return real.parent / f"{DRAFT_PREFIX}{'0' * 12}" / f"{'0' * DRAFT_NAME_CHARS}{real.suffix[:16]}"


def _mounted_files() -> set[str]:
    """Return what is mounted by itself; none where the system has no such list."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return set()
    points = [line.split(" ")[4] for line in lines]  # with spaces and the like in octal: "\\040"
    return {re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point) for point in points}
