"""The audio files below a folder, by their names, and an account of all other files in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.catalogue.file_rules import FileRules
from preprocessing.catalogue.source_counts import SourceCounts
from store.errors import BadInput
from store.fs.files import local_path
from store.fs.listing import FoundFile, PathFilter, list_files, stream_files
from store.fs.local_walk import PassedOver

AUDIO_SUFFIXES = (
    ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".wav", ".aif", ".aiff", ".aifc",
    ".wma", ".asf", ".wv", ".ape", ".tta", ".spx", ".m4b", ".m4p", ".m4r", ".mp1", ".mp2", ".mpga", ".fla",
    ".mka", ".weba", ".caf", ".ac3", ".dts", ".mpc", ".dsf", ".au", ".w64",
)  # fmt: skip
AUDIO_NAME = re.compile(rf"(?i)[^/](?:{'|'.join(map(re.escape, AUDIO_SUFFIXES))})$")
NOT_UTF_8 = r"\\udc[89a-f][0-9a-f]"  # as list_files escapes it
NO_RULES = FileRules()


class AudioFilter(PathFilter):
    """The files that are named like audio and that no rule leaves out; everything else is counted."""

    def __init__(self, rules: FileRules, counts: SourceCounts) -> None:
        self._rules, self._counts = rules, counts

    def includes(self, path: str) -> bool:
        """Return whether a file is named like audio, or is a folder, and no rule leaves it out."""
        is_audio = path.endswith("/") or AUDIO_NAME.search(path) is not None
        return is_audio and self._rules.excluding_rule(path) is None

    def enters(self, folder: str) -> bool:
        """Return whether a folder is walked."""
        return self._rules.enters(folder)

    def pass_over(self, path: str, why: PassedOver) -> None:
        """Count an entry that is not listed."""
        self._counts.pass_over(path, why, self._rules.excluding_rule(path))


def find_audio(source: str, *, rules: FileRules = NO_RULES, counts: SourceCounts | None = None) -> pa.Table:
    """Return the audio files below a folder as LISTING_SCHEMA, in order of their paths; count all others.

    Raises: BadInput if there is no such folder, no audio in it, or it may not be read.

    Folders that may not be listed, and files whose names no table or no URL can hold, are counted as unusable.
    """
    counts = SourceCounts() if counts is None else counts
    unusable: list[FoundFile] = []
    with _translate_errors(source):
        audio = list_files(source, selection=AudioFilter(rules, counts), unusable=unusable)
    for file in unusable:
        counts.add(file.path, file.problem)
    audio = _without_unnameable(audio, NOT_UTF_8, "name-not-utf-8", counts)
    if "://" in source:  # a URL would be split there
        audio = _without_unnameable(audio, "::", "name-breaks-url", counts)
    counts.audio += len(audio)
    if not len(audio):
        raise _no_audio(source, counts)
    return audio


def stream_audio(
    source: str, *, rules: FileRules = NO_RULES, counts: SourceCounts | None = None
) -> Iterator[FoundFile]:
    """Yield the audio files below a folder, and those that cannot be used, with the reason; count all others.

    The source may also be one file. Raises: BadInput if it is not there or may not be read; at the end, if there was
    no audio in it.
    """
    counts = SourceCounts() if counts is None else counts
    is_empty = True
    with _translate_errors(source):
        for file in stream_files(source, selection=AudioFilter(rules, counts)):
            is_empty = False
            counts.add(file.path, file.problem)
            yield file
    if is_empty:
        raise _no_audio(source, counts)


@contextmanager
def _translate_errors(source: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BadInput(f"{source}: no such file or folder; check the path or URL of the source") from None
    except NotADirectoryError:
        path = local_path(source)
        if path is not None and not path.is_file():
            raise BadInput(f"{source}: this is a pipe or a device; wanted audio files") from None
        raise BadInput(f"{source}: this is a file; wanted a folder of audio files") from None
    except PermissionError as error:
        folder = error.filename or source
        raise BadInput(f"{folder}: no permission to list this folder; grant it, or move it away") from error


def _no_audio(source: str, counts: SourceCounts) -> BadInput:
    found = f"{counts.breakdown({})}; " if counts.total else ""
    files = "1 file" if counts.total == 1 else f"{counts.total:,} files"
    return BadInput(
        f"{source}: {files}, none of them audio; {found}wanted {' '.join(AUDIO_SUFFIXES)}; "
        "check the path or URL of the source"
    )


def _without_unnameable(audio: pa.Table, pattern: str, problem: str, counts: SourceCounts) -> pa.Table:
    """Return the files whose names do not match, and count the others."""
    is_odd = pc.match_substring_regex(audio["path"], pattern)
    if not pc.any(is_odd).as_py():
        return audio  # without a copy of a million rows
    for path in audio.filter(is_odd)["path"].to_pylist():
        counts.add(path, problem)
    return audio.filter(pc.invert(is_odd))
