"""The decision what one file of a batch is to become, from its present state, before anything is written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.errors import SpectrogramOneError
from store.fs.metadata import Owner, owner_of
from store.fs.s3_objects import has_version
from store.tagging.swap.journal import digest_file
from store.tags.formats import CUSTOM_TAG_NAMES, TagEdit
from store.tags.write import checked_edit

Row = Mapping[str, Any]


class FileSkipped(SpectrogramOneError):
    """A file must not be written, for a reason that has a code; the others of its batch go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class TagRequest:
    """A file that is to get the genres and custom tags of a row of PREDICTIONS_SCHEMA."""

    track_id: str
    url: str
    row: Row


@dataclass(frozen=True)
class UndoRequest:
    """A file that is to become what it was; several attempts at a batch may have journalled it."""

    track_id: str
    url: str
    entries: Sequence[Row]  # of JOURNAL_SCHEMA
    even_changed: bool


@dataclass(frozen=True)
class Retag:
    """Edit the tags; refuse to if the file has other genres than `expected_genres`."""

    edit: TagEdit
    expected_genres: Sequence[str] | None = None  # None: whatever it has


@dataclass(frozen=True)
class Rebuild:
    """Compute the old bytes from the present ones."""

    delta: bytes
    digest: bytes  # of the old bytes


@dataclass(frozen=True)
class Refetch:
    """Fetch the old bytes from the bucket, which kept them as a version."""

    url: str
    version_id: str
    digest: bytes  # of the old bytes


Request = TagRequest | UndoRequest
Change = Retag | Rebuild | Refetch


@dataclass(frozen=True)
class Decision:
    """The change of one file."""

    status: str  # once it is done
    change: Change | None  # None: the file stays as it is
    mtime_ns: int | None = None  # None: as the settings have it
    digest: bytes | None = None  # of the file, if it was computed
    owner: Owner | None = None  # to be given back, as far as this user may; None: the present one stays


def decide(request: Request, path: Path, signature: str, own_digests: Collection[bytes]) -> Decision:
    """Decide what is to become of a file, from its content at `path`.

    Raises: FileSkipped; BadInput if no tag can hold what is to be written.

    `own_digests` are of what earlier attempts at the same batch were about to make of the file: a file
    with one of these is done.
    """
    match request:
        case TagRequest(row=row):
            return _decide_tagging(row, path, signature, own_digests)
        case UndoRequest(entries=entries, even_changed=even_changed):
            decision = _decide_undo(entries, path, own_digests, even_changed)
            return (
                decision
                if decision.change is None
                else replace(decision, owner=_owner_to_restore(entries, path))
            )


def _decide_tagging(row: Row, path: Path, signature: str, own_digests: Collection[bytes]) -> Decision:
    # First, since an edit within the padding of a tag keeps size and time, and so the signature.
    if own_digests and digest_file(path) in own_digests:
        return Decision("written", None)
    if signature != row["signature"]:
        raise FileSkipped("changed", "the file changed since its genres were predicted")
    edit = checked_edit(row["genres"], dict(row.get("custom_tags") or {}))
    return Decision("written", Retag(edit, row.get("old_genres")))


def _decide_undo(
    entries: Sequence[Row], path: Path, own_digests: Collection[bytes], even_changed: bool
) -> Decision:
    digest = digest_file(path)
    entry = next((entry for entry in entries if entry["new_digest"] == digest), None)
    if entry is not None:
        return _decide_restoring(entry, digest)
    if any(entry["old_digest"] == digest for entry in entries):
        return Decision("restored" if digest in own_digests else "as-it-was", None)
    if digest in own_digests:
        return Decision("restored-tags", None)
    if even_changed:
        return Decision("restored-tags", _old_tags(entries[-1]), digest=digest)
    raise FileSkipped("changed", "the file changed since it was tagged")


def _owner_to_restore(entries: Sequence[Row], path: Path) -> Owner | None:
    """Return the former owner of a file that changed hands when it was tagged, unless its owner changed since."""
    now = owner_of(path.stat())
    changed = (it for it in entries if it.get("new_owner") and tuple(it["new_owner"]) == now)
    entry = next(changed, None)
    return None if entry is None else (entry["old_owner"][0], entry["old_owner"][1])


def _decide_restoring(entry: Row, digest: bytes) -> Decision:
    if entry["delta"] is not None:
        rebuild = Rebuild(entry["delta"], entry["old_digest"])
        return Decision("restored", rebuild, entry["mtime_ns"], digest)
    if entry["version"] and has_version(entry["url"], entry["version"]):
        return Decision(
            "restored", Refetch(entry["url"], entry["version"], entry["old_digest"]), digest=digest
        )
    return Decision("restored-tags", _old_tags(entry), entry["mtime_ns"], digest)


def _old_tags(entry: Row) -> Retag:
    """Return the edit that writes the old genres and custom tags, and leaves the rest as it is now."""
    custom_tags = {name: entry["old_custom_tags"].get(name) for name in CUSTOM_TAG_NAMES}
    return Retag(TagEdit(tuple(entry["old_genres"]), custom_tags))
