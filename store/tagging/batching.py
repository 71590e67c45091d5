"""Files to batches whose borders depend on the files beside them only.

What was heard is kept by batch. If batches were counted out, one new file would move the borders
of all that follow, and nothing kept would be found again.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from store.fs.listing import FoundFile

TYPICAL_FOLDER_FILES = 10  # as an album has
MAX_FILES_IN_WHOLE_FOLDERS = 1_024


def iter_batches(
    files: Iterable[FoundFile], *, target_size: int = 64, keep_folders: bool = False
) -> Iterator[list[FoundFile]]:
    """Cut a stream into batches of about so many files, and twice as many at most.

    With `keep_folders`, files of one folder that follow each other stay together, up to 1,024 of
    them. One file more or less changes its own batch, and others only up to the next border that
    a name has set.
    """
    return _whole_folders(files, target_size) if keep_folders else _single_files(files, target_size)


def batch_name(batch: Sequence[FoundFile]) -> str:
    """Name a batch by its first file: the same batch has the same name in every run."""
    return hashlib.blake2b(batch[0].path.encode(), digest_size=16).hexdigest()


def _single_files(files: Iterable[FoundFile], target_size: int) -> Iterator[list[FoundFile]]:
    batch: list[FoundFile] = []
    for file in files:
        if batch and (len(batch) >= 2 * target_size or _begins(file.path, target_size)):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _whole_folders(files: Iterable[FoundFile], target_size: int) -> Iterator[list[FoundFile]]:
    batch: list[FoundFile] = []
    folder, folder_start = "", 0  # of the last file: its folder, and where that begins in the batch
    one_in = max(1, target_size // TYPICAL_FOLDER_FILES)
    for file in files:
        its_folder = file.path.rpartition("/")[0]
        if batch and its_folder != folder:
            folder_start = len(batch)
            if len(batch) >= 2 * target_size or _begins(its_folder, one_in):
                yield batch
                batch, folder_start = [], 0
        if len(batch) >= MAX_FILES_IN_WHOLE_FOLDERS:
            end = folder_start or len(batch)
            yield batch[:end]
            batch, folder_start = batch[end:], 0
        batch.append(file)
        folder = its_folder
    if batch:
        yield batch


def _begins(name: str, one_in: int) -> bool:
    """Let a name say, once in so many, that a batch begins with it: the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % one_in == 0
