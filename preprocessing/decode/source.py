"""An audio file before it is decoded: its format, and what its bytes say about its duration."""

import stat
from dataclasses import dataclass
from pathlib import Path

from preprocessing.decode.container.mpeg_duration import mpeg_duration_s
from preprocessing.decode.container.ogg_links import OggLink, read_links
from preprocessing.decode.container.sniffing import sniff_format
from preprocessing.errors import BadAudio
from store.tags.riff import lacks_audio

HEAD_BYTES = 1 << 18
MIN_BITS_PER_S = 100  # digital silence has some hundred in the most frugal codec


@dataclass(frozen=True)
class AudioSource:
    """An audio file, and what its bytes say about its duration."""

    path: Path
    kind: str
    size_bytes: int
    counted_s: float | None = (
        None  # of an MP3: its duration as its frames add up to, or as stated if they agree
    )
    links: tuple[OggLink, ...] = ()
    is_cut: bool = False  # the file ends before its audio does

    def plausible(self, stated_s: float | None) -> float | None:
        """Return a stated duration; None if the file has too few bytes for it by far."""
        if stated_s is None or not 0 < stated_s * MIN_BITS_PER_S <= 8 * self.size_bytes:
            return None
        return stated_s


def read_source(path: Path) -> AudioSource:
    """Recognise an audio file. Raises: BadAudio if it is none, or cannot be read."""
    kind, head, size_bytes = sniff_file(path)
    match kind:
        case "mpeg":
            return AudioSource(path, kind, size_bytes, counted_s=mpeg_duration_s(path, head))
        case "ogg":
            links = tuple(read_links(path))
            return AudioSource(path, kind, size_bytes, links=links, is_cut=not links[-1].is_complete)
        case "wav" | "aiff":
            with path.open("rb") as file:
                return AudioSource(path, kind, size_bytes, is_cut=lacks_audio(file))
    return AudioSource(path, kind, size_bytes)


def sniff_file(path: Path) -> tuple[str, bytes, int]:
    """Return the format of an audio file, its first bytes and its size. Raises: BadAudio if they are of no format."""
    head, size_bytes = read_head(path)
    if size_bytes == 0:
        raise BadAudio("empty", "0 bytes")
    kind = sniff_format(head)
    if kind is None:
        raise BadAudio("not-audio", f"it begins with {head[:16]!r}, like no audio format")
    return kind, head, size_bytes


def read_head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a file and its size. Raises: BadAudio if there is no file that can be read."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise BadAudio("not-audio", "it is a folder")
        if not stat.S_ISREG(info.st_mode):
            raise BadAudio("not-audio", "it is a pipe or a device, not a file")
        with path.open("rb") as file:
            return file.read(HEAD_BYTES), info.st_size
    except FileNotFoundError:
        raise BadAudio("missing", "no such file") from None
    except PermissionError:
        raise BadAudio("no-permission", "this user may not read the file") from None
