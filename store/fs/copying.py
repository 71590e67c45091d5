"""Whole files, copied between disks and object stores in constant memory where the target is a disk."""

import hashlib
import re
from collections.abc import Iterator

from store.fs.files import change_times, local_path, make_folder, open_for_reading, replacing, write_atomic

BLOCK_BYTES = 1 << 20
DRAFT = re.compile(r"(^|/)\.[0-9a-f]{32}\.part")  # what a killed write left; see `files.replacing`


def list_files(url: str) -> list[str]:
    """Return the names of all files in a folder and in those below it, sorted; none of a folder that is not there."""
    try:
        return sorted(name for name in change_times(url) if not DRAFT.search(name))
    except FileNotFoundError:
        return []


def copy_file(source: str, target: str) -> tuple[str, int]:
    """Copy a file, replacing one of that name; return the SHA-256 and the size of what was read."""
    digest, size = hashlib.sha256(), 0
    path = local_path(target)
    if path is None:
        data = b"".join(_blocks(source))  # an object is put at once
        write_atomic(target, data)
        return hashlib.sha256(data).hexdigest(), len(data)
    make_folder(path.parent)
    with replacing(path) as draft, draft.open("wb") as file:
        for block in _blocks(source):
            digest.update(block)
            size += len(block)
            file.write(block)
    return digest.hexdigest(), size


def hash_url(url: str) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file. Raises: FileNotFoundError."""
    digest, size = hashlib.sha256(), 0
    for block in _blocks(url):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def _blocks(url: str) -> Iterator[bytes]:
    with open_for_reading(url) as file:
        while block := file.read(BLOCK_BYTES):
            yield block
