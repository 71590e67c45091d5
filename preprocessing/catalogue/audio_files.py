"""The audio files below a folder, by their names."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from store.fs.listing import FoundFile, list_files, stream_files

AUDIO_SUFFIXES = (
    ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".wav", ".aif", ".aiff", ".aifc",
    ".wma", ".asf", ".wv", ".ape", ".tta", ".spx",
)  # fmt: skip
AUDIO_NAME = rf"(?i)[^/](?:{'|'.join(map(re.escape, AUDIO_SUFFIXES))})$"
HIDDEN = r"(?:^|/)\."
NOT_UTF_8 = r"\\udc[89a-f][0-9a-f]"  # as list_files escapes it


def find_audio(source: str) -> pa.Table:
    """Return the audio files below a folder as LISTING_SCHEMA, in order of their paths.

    Raises: BadInput if there is no such folder, no audio in it, or it may not be read.
    """
    with _translate_errors(source):
        files = list_files(source)
    is_audio = _is_audio(files["path"])
    # Copies of a million rows are avoided.
    audio = files if pc.all(is_audio).as_py() else files.filter(is_audio)
    if not len(audio):
        raise _no_audio(source, len(files))
    _refuse_unnameable(source, audio["path"])
    return audio


def stream_audio(source: str) -> Iterator[FoundFile]:
    """Yield the audio files below a folder, and those that cannot be used, with the reason.

    Raises: BadInput if there is no such folder or it may not be read; at the end, if there was no audio in it.
    """
    files = 0

    def is_audio(path: str) -> bool:
        nonlocal files
        is_folder = path.endswith("/")
        files += not is_folder
        return not hidden.search(path) and (is_folder or bool(audio_name.search(path)))

    hidden, audio_name = re.compile(HIDDEN), re.compile(AUDIO_NAME)
    is_empty = True
    with _translate_errors(source):
        for file in stream_files(source, include=is_audio):
            is_empty = False
            yield file
    if is_empty:
        raise _no_audio(source, files)


@contextmanager
def _translate_errors(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"{source}: no such folder; check the path or URL of the source") from None
    except NotADirectoryError:
        raise BadInput(f"{source}: this is a file; wanted a folder of audio files") from None
    except PermissionError as error:
        folder = error.filename or source
        raise BadInput(f"{folder}: no permission to list this folder; grant it, or move it away") from error


def _no_audio(source: str, files: int) -> BadInput:
    return BadInput(
        f"{source}: {files} files, none of them audio; wanted {' '.join(AUDIO_SUFFIXES)}; "
        "check the path or URL of the source"
    )


def _is_audio(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    is_hidden = pc.match_substring_regex(paths, HIDDEN)
    return pc.and_not(pc.match_substring_regex(paths, AUDIO_NAME), is_hidden)


def _refuse_unnameable(source: str, paths: pa.ChunkedArray) -> None:
    """Raises: BadInput for names that no table can hold, or no URL."""
    unusable = paths.filter(pc.match_substring_regex(paths, NOT_UTF_8))
    if len(unusable):
        raise BadInput(
            f"{source}: the names of {len(unusable)} files are not UTF-8, the first '{unusable[0]}'; "
            "no table can hold them; rename them (convmv does it for whole folders)"
        )
    if "://" not in source:
        return
    unusable = paths.filter(pc.match_substring(paths, "::"))
    if len(unusable):
        raise BadInput(
            f"{source}: the names of {len(unusable)} files hold '::', the first '{unusable[0]}'; a URL is split there; "
            "rename them"
        )
