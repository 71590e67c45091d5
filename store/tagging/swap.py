"""What swapping files on a disk and objects in a bucket have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from store.errors import SpectrogramOneError
from store.tags.formats import TagView

DRAFTS_AT_ONCE = 64  # they are held open while they are synced
BYTES_AT_ONCE = 1 << 30  # the room that drafts may take on the disk of the music
MOST_SUFFIX = 16


class FileSkipped(SpectrogramOneError):
    """A file must not be written, for a reason that has a code; the others of its batch go on."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Plan:
    """What is to be done to one file: `make` writes the draft and gives the tags that the file has."""

    status: str  # once it is done
    make: Callable[[Path, Path], TagView] | None  # None: nothing is to be done
    mtime_ns: int | None = None  # None: as the settings have it
    digest: bytes | None = None  # of the file, if it was read already


@dataclass(frozen=True)
class Job:
    """One file of a batch, and who looks at it first. `look` raises FileSkipped."""

    track_id: str
    url: str
    look: Callable[[Path, str], Plan]  # takes the path of the file, or of a copy, and its signature


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    status: str
    reason: str | None = None
    detail: str | None = None
    signature: str | None = None  # of the file as it now is; None if it was left alone


def left_alone(why: FileSkipped) -> Outcome:
    """Tell of a file that was not touched."""
    return Outcome("skipped", why.reason, str(why))
