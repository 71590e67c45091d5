"""Batches of files whose boundaries depend on the nearby files only.

Predictions are cached by batch. If each batch had a fixed number of files, one new file would move the boundaries
of all later batches, and no cached prediction would be found.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from store.fs.listing import FoundFile

TYPICAL_FOLDER_FILES = 10  # of an album
MAX_FILES_IN_WHOLE_FOLDERS = 1_024


def iter_batches(
    files: Iterable[FoundFile], *, target_size: int = 64, keep_folders: bool = False
) -> Iterator[list[FoundFile]]:
    """Yield batches of about `target_size` files, and at most twice as many.

    With `keep_folders`, consecutive files of one folder stay together, up to 1,024 of them. A file that is
    added or removed changes its own batch, and others only up to the next boundary set by a name.
    """
    return _whole_folders(files, target_size) if keep_folders else _single_files(files, target_size)


def batch_name(batch: Sequence[FoundFile]) -> str:
    """Return the name of a batch, from its first file: the same batch has the same name in every run."""
    return hashlib.blake2b(batch[0].path.encode(), digest_size=16).hexdigest()


def _single_files(files: Iterable[FoundFile], target_size: int) -> Iterator[list[FoundFile]]:
    batch: list[FoundFile] = []
    for file in files:
        if batch and (len(batch) >= 2 * target_size or _starts_batch(file.path, target_size)):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _whole_folders(files: Iterable[FoundFile], target_size: int) -> Iterator[list[FoundFile]]:
    batch: list[FoundFile] = []
    folder, folder_start = "", 0  # the folder of the last file, and its first index in the batch
    one_in = max(1, target_size // TYPICAL_FOLDER_FILES)
    for file in files:
        new_folder = file.path.rpartition("/")[0]
        if batch and new_folder != folder:
            folder_start = len(batch)
            if len(batch) >= 2 * target_size or _starts_batch(new_folder, one_in):
                yield batch
                batch, folder_start = [], 0
        if len(batch) >= MAX_FILES_IN_WHOLE_FOLDERS:
            end = folder_start or len(batch)
            yield batch[:end]
            batch, folder_start = batch[end:], 0
        batch.append(file)
        folder = new_folder
    if batch:
        yield batch


def _starts_batch(name: str, one_in: int) -> bool:
    """Return whether a batch starts at a name: true for one name in `one_in`, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % one_in == 0
