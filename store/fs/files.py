"""Whole-file writes and exclusive creation, on any fsspec URL: nothing half-written is ever visible."""

import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote
from uuid import uuid4

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from store.errors import BadInput
from store.fs.disk_errors import NO_HARD_LINK_CODES, NOT_SUPPORTED_CODES, naming, retry_if_stale
from store.fs.zip_archive import open_member, read_directory

AT_FDCWD, RENAME_NOREPLACE = -100, 1  # of linux/fcntl.h and linux/fs.h
MAX_PUT_ATTEMPTS = 10
FIRST_SERVER_ERROR = 500  # an HTTP status


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL or a local path."""
    return "/".join([url.rstrip("/"), *parts])


def last_part(url: str) -> str:
    """Return the last part of the path of a URL: the name of a file or a folder."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def split_zip_url(url: str) -> tuple[str, str] | None:
    """Split zip://FILE::ARCHIVE into the name within the archive and the archive's URL; None for another URL."""
    if not url.startswith("zip://"):
        return None
    name, _, archive = url.removeprefix("zip://").partition("::")
    if not archive:
        raise BadInput(f"{url}: names no archive; wanted zip://FILE::ARCHIVE")
    return name.strip("/"), archive


def is_http(url: str) -> bool:
    """Return whether a URL names a web server: names in such a URL are quoted."""
    return url.startswith(("http://", "https://"))


def local_path(url: str) -> Path | None:
    """Return the path of `url` on this machine's disk; None if it is remote, or within an archive."""
    if "://" not in url:
        return Path(url).expanduser().absolute()
    if split_zip_url(url) is not None:
        return None
    fs, path = file_system(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL, and the path in it. A URL without "://" is a local path.

    fsspec would take "a::b.mp3" for two URLs, one within the other; files have such names.

    Raises: BadInput for a protocol that is unknown or not installed.
    """
    if "://" in url:
        try:
            fs, path = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as why:  # an unknown protocol, or a missing library
            raise BadInput(f"{url}: {why}; wanted a local path, or a URL like s3://BUCKET/FOLDER") from None
        return fs, path
    return LocalFileSystem(), str(Path(url).expanduser().absolute())


def absolute(url: str) -> str:
    """Return a local path as an absolute one, so that a process in another folder finds it, and a URL as it is.

    In zip://FILE::ARCHIVE, the path of the archive becomes absolute.
    """
    zipped = split_zip_url(url)
    if zipped is not None:
        return f"zip://{zipped[0]}::{absolute(zipped[1])}"
    path = local_path(url)
    return url if path is None else str(path.absolute())


def exists(url: str) -> bool:
    """Return whether a file or folder exists."""
    zipped = split_zip_url(url)
    if zipped is None:
        fs, path = file_system(url)
        with translate_server_errors(url):  # a failing server is no missing file
            return bool(fs.exists(path, strict=True) if is_http(url) else fs.exists(path))
    name, archive = zipped
    if not name:
        return exists(archive)
    folder, _, last = name.rpartition("/")
    return last in list_names(f"zip://{folder}::{archive}")


def is_file(url: str) -> bool:
    """Return whether a file, not a folder, exists."""
    fs, path = file_system(url)
    return bool(fs.isfile(path))


def list_names(url: str) -> list[str]:
    """Return the names in a folder, sorted; none if the folder does not exist."""
    zipped = split_zip_url(url)
    try:
        if zipped is not None:
            return _names_within(*zipped)
        fs, path = file_system(url)
        with translate_server_errors(url):
            listing = fs.ls(path, detail=False, **_uncached(fs))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = map(last_part, listing)
    return sorted(map(unquote, names) if is_http(url) else names)


def _names_within(folder: str, archive: str) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    within = (name for name in read_directory(*file_system(archive)).row_of if name.startswith(prefix))
    return sorted({name[len(prefix) :].split("/", 1)[0] for name in within} - {""})


def read_bytes(url: str) -> bytes:
    """Read a whole file. Raises: FileNotFoundError; DamagedFile if it cannot be unpacked from its archive."""
    if split_zip_url(url) is not None:
        with open_for_reading(url) as file:
            return file.read()
    fs, path = file_system(url)
    with translate_server_errors(url):
        content = fs.cat_file(path)
    assert isinstance(content, bytes)
    return content


@contextmanager
def open_for_reading(url: str) -> Iterator[BinaryIO]:
    """Open a file to read it from start to end.

    Raises: FileNotFoundError; DamagedFile if it cannot be unpacked from its archive.
    """
    zipped = split_zip_url(url)
    fs, path = file_system(url if zipped is None else zipped[1])
    with translate_server_errors(url if zipped is None else zipped[1]):
        if zipped is not None:
            opened = open_member(fs, path, zipped[0])
        elif is_http(url):
            # As one stream, since not every server supports range requests; with a size, so that fsspec
            # does not request it: that request hides what is wrong.
            opened = fs.open(path, "rb", block_size=0, size=1)
        else:
            opened = fs.open(path, "rb")
        with opened as file:
            yield file


@contextmanager
def translate_server_errors(url: str) -> Iterator[None]:
    """Translate the errors of a server into OSError, which is retried, and PermissionError.

    Raises: BadInput if there are no credentials for an object store.
    """
    if url.startswith("s3://"):
        with _translate_s3_errors(url):
            yield
        return
    if not is_http(url):
        yield
        return
    from aiohttp import ClientError, ClientResponseError  # slow to import, and rarely needed

    try:
        yield
    except ClientResponseError as error:
        kind = PermissionError if error.status in (401, 403) else OSError
        raise kind(f"{url}: the server responds {error.status} {error.message}") from error
    except ClientError as error:
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


@contextmanager
def _translate_s3_errors(url: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, NoCredentialsError  # of the extra s3

    try:
        yield
    except NoCredentialsError:
        raise BadInput(
            f"{url}: no credentials for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        ) from None
    except BotoCoreError as error:
        raise OSError(f"{url}: {error}") from error
    except OSError as error:  # of s3fs, after its retries, without the URL
        status = _response_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status < FIRST_SERVER_ERROR:
            raise
        raise OSError(f"{url}: the server responds {status} ({error.strerror or error})") from error.__cause__


def _response_of(error: OSError) -> Mapping[str, Any]:
    """Return what the server of an object store responded; {} if that is not known."""
    return getattr(error.__cause__, "response", None) or {}


def hash_file(path: Path, algorithm: str) -> bytes:
    """Return the hash of a local file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).digest()


def write_atomic(url: str, data: bytes) -> None:
    """Write `data` to `url`, replacing an existing file in one step."""
    path = local_path(url)
    if path is None:
        fs, remote = file_system(url)
        fs.pipe_file(remote, data)  # an object appears whole or not at all
        return
    make_folder(path.parent)
    with replacing(path) as draft, naming(path):
        draft.write_bytes(data)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, and sync their names to disk: else a power failure may lose all in it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_to_disk(path.parent)


def put_if_absent(url: str, data: bytes) -> None:
    """Create `url` holding `data`, in one step.

    Raises: FileExistsError if `url` already exists; it is then left untouched.

    On a local disk fsspec's own `mode="create"` checks first and writes second, so two
    writers can both succeed. A hard link cannot be created twice: it decides.
    """
    path = local_path(url)
    if path is None:
        _create_remote(url, data)
        return
    make_folder(path.parent)
    draft = _draft_path(path)
    try:
        with naming(path), draft.open("xb") as file:
            file.write(data)
        sync_to_disk(draft)
        _link_if_absent(draft, path)
        sync_to_disk(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _link_if_absent(draft: Path, path: Path) -> None:
    """Give a draft its name, unless that exists. Raises: FileExistsError; OSError if the disk has no way to do so.

    vfat, exFAT and many shares have no hard links: there a rename that replaces nothing decides.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        # NFS: the server's response to our link may be lost, and the client's second request finds it there.
        if draft.stat().st_nlink < 2:
            raise
    except OSError as error:
        if error.errno not in NO_HARD_LINK_CODES:
            raise
        _rename_if_absent(draft, path)


def _rename_if_absent(draft: Path, path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    rename = getattr(libc, "renameat2", None)  # glibc 2.28
    failed = rename is None or rename(
        AT_FDCWD, os.fsencode(draft), AT_FDCWD, os.fsencode(path), RENAME_NOREPLACE
    )
    if not failed:
        return
    code = ctypes.get_errno() or errno.ENOSYS
    if code == errno.EEXIST:
        raise FileExistsError(code, os.strerror(code), str(path))
    reason = "this disk has neither hard links nor exclusive renames: name a folder on another one"
    raise OSError(code, f"{os.strerror(code)} ({reason})", str(path))


def _create_remote(url: str, data: bytes) -> None:
    """Create a remote file by a conditional put. Raises: FileExistsError, OSError.

    S3 refuses with 412 if the object exists, and with 409 while another conditional put is being carried out.
    Not every server of the protocol names the condition that failed, so s3fs knows only some of the refusals.
    """
    fs, remote = file_system(url)
    for attempts_left in reversed(range(MAX_PUT_ATTEMPTS)):
        try:
            with translate_server_errors(url):
                fs.pipe_file(remote, data, mode="create")
            return
        except OSError as error:
            fs.invalidate_cache(remote)  # s3fs does so only after a put that was accepted
            if isinstance(error, FileExistsError):
                raise
            code = _response_of(error).get("Error", {}).get("Code")
            if code in ("PreconditionFailed", "412"):
                raise FileExistsError(f"{url}: exists") from error
            if code not in ("ConditionalRequestConflict", "409") or not attempts_left:
                raise


def remove(url: str) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    fs, path = file_system(url)
    with translate_server_errors(url), suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def change_times(url: str) -> dict[str, float]:
    """Return when each file in a folder and in those below it was written, by the clock of its file system.

    Units: seconds since 1970.
    """
    fs, path = file_system(url)
    with translate_server_errors(url):
        found = fs.find(path, detail=True, **_uncached(fs))
    return {name.removeprefix(f"{path.rstrip('/')}/"): _change_s(info) for name, info in found.items()}


def _uncached(fs: AbstractFileSystem) -> dict[str, bool]:
    """Return how to list without the cache of s3fs, which misses what others wrote since."""
    return {"refresh": True} if fs.async_impl else {}


def change_time(url: str) -> float:
    """Return when a file was written, by the clock of its file system. Units: seconds since 1970."""
    fs, path = file_system(url)
    with translate_server_errors(url):
        return _change_s(fs.info(path, **_uncached(fs)))


def _change_s(info: Mapping[str, Any]) -> float:
    """Return the time in the words of the local disk, of S3 or of memory."""
    changed = info["mtime"] if "mtime" in info else info.get("LastModified", info.get("created"))
    return float(changed.timestamp() if isinstance(changed, datetime) else changed)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft beside `path`; when the block ends without an error, rename it to `path`.

    The draft has the suffix of `path`, since some libraries choose a format by it. If
    the block raises, or the process dies, `path` is what it was.
    """
    draft = _draft_path(path)
    try:
        yield draft
        sync_to_disk(draft)
        retry_if_stale(os.replace, draft, path)
        sync_to_disk(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _draft_path(path: Path) -> Path:
    return path.with_name(f".{uuid4().hex}.part{path.suffix}")


def sync_to_disk(path: Path) -> None:
    """Flush to disk what was written: the content of a file, or the names in a folder."""
    try:
        with naming(path):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        # Shares sync no folders; one into which a user may write, but which that user may not list, cannot be opened.
        is_harmless = error.errno in NOT_SUPPORTED_CODES or isinstance(error, PermissionError)
        if not (is_harmless and path.is_dir()):
            raise
