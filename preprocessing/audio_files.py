"""The audio files below a folder, by their names."""

import re

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from store.listing import list_files

AUDIO_SUFFIXES = (
    ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".wav", ".aif", ".aiff", ".aifc",
    ".wma", ".asf",
)  # fmt: skip
AUDIO_NAME = rf"(?i)[^/](?:{'|'.join(map(re.escape, AUDIO_SUFFIXES))})$"
HIDDEN = r"(?:^|/)\."
NOT_UTF_8 = r"\\udc[89a-f][0-9a-f]"  # as list_files writes it


def find_audio(source: str) -> pa.Table:
    """List the audio files below a folder: LISTING_SCHEMA, in order of their paths.

    Raises: BadInput if there is no such folder, no audio in it, or it may not be read.
    """
    try:
        files = list_files(source)
    except FileNotFoundError:
        raise BadInput(f"{source}: no such folder; check the path or URL of the source") from None
    except NotADirectoryError:
        raise BadInput(f"{source}: this is a file; wanted a folder of audio files") from None
    except PermissionError as error:
        folder = error.filename or source
        raise BadInput(f"{folder}: no permission to list this folder; grant it, or move it away") from error
    is_audio = _is_audio(files["path"])
    # A million rows are not copied without need.
    audio = files if pc.all(is_audio).as_py() else files.filter(is_audio)
    if not len(audio):
        raise BadInput(
            f"{source}: {len(files)} files, none of them audio; wanted {' '.join(AUDIO_SUFFIXES)}; "
            "check the path or URL of the source"
        )
    _refuse_unnameable(source, audio["path"])
    return audio


def _is_audio(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    is_hidden = pc.match_substring_regex(paths, HIDDEN)
    return pc.and_not(pc.match_substring_regex(paths, AUDIO_NAME), is_hidden)


def _refuse_unnameable(source: str, paths: pa.ChunkedArray) -> None:
    """Raises: BadInput for names that no table can hold, or no URL."""
    odd = paths.filter(pc.match_substring_regex(paths, NOT_UTF_8))
    if len(odd):
        raise BadInput(
            f"{source}: the names of {len(odd)} files are not UTF-8, the first '{odd[0]}'; "
            "no table can hold them; rename them (convmv does it for whole folders)"
        )
    if "://" not in source:
        return
    odd = paths.filter(pc.match_substring(paths, "::"))
    if len(odd):
        raise BadInput(
            f"{source}: the names of {len(odd)} files hold '::', the first '{odd[0]}'; a URL would part there; "
            "rename them"
        )
