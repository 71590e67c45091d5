"""What swapping files on a disk and objects in a bucket have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from store.errors import SpectrogramOneError
from store.tags.formats import FileTags

MAX_GROUP_FILES = 64  # they are held open while they are synced
MAX_GROUP_BYTES = 1 << 30  # the room that drafts may take on the disk of the music
MAX_SUFFIX_CHARS = 16


class FileSkipped(SpectrogramOneError):
    """A file must not be written, for a reason that has a code; the others of its batch go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class PlannedChange:
    """What is to be done to one file: `write_draft` writes the draft and gives the tags that the file has."""

    status: str  # once it is done
    write_draft: Callable[[Path, Path], FileTags] | None  # None: nothing is to be done
    mtime_ns: int | None = None  # None: as the settings have it
    digest: bytes | None = None  # of the file, if it was read already


@dataclass(frozen=True)
class SwapJob:
    """One file of a batch, and who looks at it first. `plan` raises FileSkipped."""

    track_id: str
    url: str
    plan: Callable[[Path, str], PlannedChange]  # takes the path of the file, or of a copy, and its signature


@dataclass(frozen=True)
class SwapResult:
    """What became of one file."""

    status: str
    reason: str | None = None
    detail: str | None = None
    signature: str | None = None  # of the file as it now is; None if it was left alone


def skipped_result(why: FileSkipped) -> SwapResult:
    """Tell of a file that was not touched."""
    return SwapResult("skipped", why.reason, str(why))
