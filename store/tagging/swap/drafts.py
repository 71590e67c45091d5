"""The steps that swapping local files and S3 objects share: write and verify a draft, group drafts, report results."""

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from store.errors import BadInput, ObjectChanged
from store.fs.files import local_path
from store.fs.s3_objects import download_object, is_credentials_error
from store.tagging.swap.byte_delta import apply_delta, make_delta
from store.tagging.swap.changes import Change, Decision, FileSkipped, Rebuild, Refetch, Request, Retag
from store.tagging.swap.journal import digest_file
from store.tags.formats import FileTags, detect_tag_format, parse_tags
from store.tags.write import write_tagged_copy

MAX_GROUP_FILES = 64  # they are held open while they are synced
MAX_GROUP_BYTES = 1 << 30  # the space that drafts may take on the disk of the music
MAX_SUFFIX_CHARS = 16
DRAFT_PREFIX = ".spectrogram-one-"  # of the hidden folders of drafts; a listing of music leaves them out
# A mounted file; a path of maximum length; a name that the disk of the copies cannot hold; a file that another host
# of a share keeps replacing.
SINGLE_FILE_CODES = (errno.EBUSY, errno.EXDEV, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ESTALE)

OwnWork = Mapping[str, Collection[bytes]]  # by URL: digests that earlier attempts at the batch journalled


@dataclass(frozen=True)
class Draft:
    """The next content of a file, verified, and its journal entry."""

    number: int  # of its request in the batch
    status: str
    path: Path
    entry: Mapping[str, Any]


D = TypeVar("D", bound=Draft)


@dataclass(frozen=True)
class SwapResult:
    """The result for one file."""

    status: str
    reason: str | None = None
    detail: str | None = None
    signature: str | None = None  # of the file as it now is; None if it was left alone
    old_signature: str | None = None  # of the file as it was before


def skipped_result(why: FileSkipped) -> SwapResult:
    """Return the result of a file that was not touched."""
    return SwapResult("skipped", why.reason, str(why))


def identical_result(decision: Decision) -> SwapResult:
    """Return the result of a file whose edited copy equals it byte for byte; signatures are for the caller to add."""
    if decision.status == "written":
        return SwapResult("kept", "has-genre", "it has these genres already")
    return SwapResult("as-it-was")


def write_draft(
    request: Request,
    decision: Decision,
    path: Path,
    draft: Path,
    *,
    mtime_ns: int | None,
    version: str | None,
) -> dict[str, Any] | None:
    """Write and verify the draft of a file; return its journal entry, or None if it equals the file.

    Raises: FileSkipped, BadInput if the file must be left alone.
    """
    assert decision.change is not None
    old_digest = decision.digest or digest_file(path)
    tags = _apply_change(decision.change, path, draft)
    new_digest = digest_file(draft)
    if new_digest == old_digest:
        draft.unlink()
        return None
    if isinstance(decision.change, Retag):
        check_genres(decision.change, tags)
    return {
        "track_id": request.track_id,
        "url": request.url,
        "old_digest": old_digest,
        "new_digest": new_digest,
        "delta": make_delta(draft, path),
        "old_genres": tags.genres,
        "old_custom_tags": tags.custom_tags,
        "mtime_ns": mtime_ns,
        "version": version,
    }


def _apply_change(change: Change, path: Path, draft: Path) -> FileTags:
    """Write what a file is to become, and return the tags that it has."""
    match change:
        case Retag(edit):
            return write_tagged_copy(path, draft, edit)
        case Rebuild(delta, digest):
            apply_delta(path, delta, draft)
            found = "the journal's delta does not give the former bytes of the file"
        case Refetch(url, version_id, digest):
            download_object(url, draft, version_id=version_id)
            found = "the version that the journal names has other bytes than the object had"
    if digest_file(draft) != digest:
        raise FileSkipped("damaged-journal", found)
    return parse_tags(path, detect_tag_format(path))


def check_genres(change: Retag, tags: FileTags) -> None:
    """Raise FileSkipped if a file has other genres than it had when its new ones were chosen.

    An edit within the padding of a tag by a program that restores the time keeps the signature.
    """
    if change.expected_genres is not None and list(change.expected_genres) != tags.genres:
        raise FileSkipped("changed", "the genres of the file changed since its new ones were predicted")


def in_groups(drafts: Iterable[D]) -> Iterator[list[D]]:
    """Collect drafts until they are many, or take much space."""
    group: list[D] = []
    size = 0
    for draft in drafts:
        group.append(draft)
        size += draft.path.stat().st_size
        if len(group) >= MAX_GROUP_FILES or size >= MAX_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@contextmanager
def skip_if_unusable(url: str) -> Iterator[None]:
    """Translate the errors that concern one file only; let a failing disk or store raise its OSError.

    Raises: FileSkipped with the reason why a file or an object cannot be changed.
    """
    path = local_path(url)
    try:
        yield
    except ObjectChanged as why:
        raise FileSkipped("changed", "another writer changed the object meanwhile") from why
    except BadInput as why:
        raise FileSkipped("unsupported", str(why).removeprefix(f"{url}: ")) from why
    except PermissionError as why:
        if is_credentials_error(why):
            raise OSError(f"{url}: {why}") from why
        raise FileSkipped("no-permission", str(why) if path is None else _refused_path(why, path)) from why
    except (FileNotFoundError, NotADirectoryError) as why:
        if path is not None and path.exists():
            raise  # its draft is gone: another attempt at this batch removed it
        raise FileSkipped("missing", "the object is gone" if path is None else "the file is gone") from why
    except OSError as why:
        if why.errno == errno.ELOOP:
            raise FileSkipped("missing", "its link is circular") from why
        if why.errno in SINGLE_FILE_CODES:
            raise FileSkipped("unsupported", f"the file cannot be written: {why.strerror}") from why
        raise


def _refused_path(why: PermissionError, path: Path) -> str:
    """Name the file that may not be read, or the folder in which no draft may be made, and the reason."""
    where = Path(why.filename or path)
    where = next((it.parent for it in (where, *where.parents) if it.name.startswith(DRAFT_PREFIX)), where)
    return f"{where}: {why.strerror}"
