"""Whole-file writes and exclusive creation, on any fsspec URL: nothing half-written is ever visible."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL or a local path."""
    return "/".join([url.rstrip("/"), *parts])


def local_path(url: str) -> Path | None:
    """Give the path of `url` on this machine's disk, or None if it lies elsewhere."""
    fs, path = file_system(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Find the file system of a URL, and the path in it. What has no "://" is a local path.

    fsspec would take "a::b.mp3" for two URLs, one within the other; files bear such names.
    """
    if "://" in url:
        fs, path = fsspec.url_to_fs(url)
        return fs, path
    return LocalFileSystem(), str(Path(url).expanduser().absolute())


def absolute(url: str) -> str:
    """Make a local path absolute, so that a process in another folder finds it; leave URLs alone."""
    path = local_path(url)
    return url if path is None else str(path.absolute())


def exists(url: str) -> bool:
    """Say whether a file or folder is there."""
    fs, path = file_system(url)
    return bool(fs.exists(path))


def list_names(url: str) -> list[str]:
    """List the names in a folder, sorted; a folder that is not there is empty."""
    fs, path = file_system(url)
    try:
        # An object store answers from a cache of its own, which misses what others wrote since.
        listing = fs.ls(path, detail=False, refresh=True) if fs.async_impl else fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in listing)


def read_bytes(url: str) -> bytes:
    """Read a whole file. Raises: FileNotFoundError."""
    fs, path = file_system(url)
    content = fs.cat_file(path)
    assert isinstance(content, bytes)
    return content


def open_for_reading(url: str) -> AbstractContextManager[BinaryIO]:
    """Open a file to be read as a stream. Raises: FileNotFoundError."""
    opened: AbstractContextManager[BinaryIO] = fsspec.open(url, "rb")
    return opened


def write_whole(url: str, data: bytes) -> None:
    """Put `data` at `url`, replacing what was there in one step."""
    path = local_path(url)
    if path is None:
        fs, remote = file_system(url)
        fs.pipe_file(remote, data)  # an object appears whole or not at all
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_bytes(data)


def put_if_absent(url: str, data: bytes) -> None:
    """Create `url` holding `data`, in one step.

    Raises: FileExistsError if `url` is already there; it is then left untouched.

    On a local disk fsspec's own `mode="create"` looks first and writes second, so two
    writers can both win. A hard link cannot be made twice: we let that decide.
    """
    path = local_path(url)
    if path is None:
        fs, remote = file_system(url)
        fs.pipe_file(remote, data, mode="create")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(path)
    try:
        with draft.open("xb") as file:
            file.write(data)
        sync(draft)
        os.link(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a draft beside `path` to write; when the block ends well, it takes the place of `path`.

    The draft bears the suffix of `path`, since some libraries choose a format by it. If
    the block raises, or the process dies, `path` is what it was.
    """
    draft = _draft_of(path)
    try:
        yield draft
        sync(draft)
        os.replace(draft, path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{uuid4().hex}.part{path.suffix}")


def sync(path: Path) -> None:
    """Have the disk hold what was written: file content, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
