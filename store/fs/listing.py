"""What lies below a folder, on any fsspec URL, in one listing."""

import errno
import html
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem

from store.fs.files import file_system, is_http, local_path, split_zip_url, translate_server_errors
from store.fs.zip_archive import read_directory

LISTING_SCHEMA = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("signature", pa.string())])
ROWS_PER_CHUNK = 1 << 14
KEYS_PER_PAGE = 1_000  # the most that S3 answers at once

ListingRow = tuple[str, int | None, str | None]


def list_files(url: str) -> pa.Table:
    """List all files below a folder, in order of their paths relative to it.

    Shapes: columns of LISTING_SCHEMA; the signature changes when the file does; null is what is not told.
    Raises: FileNotFoundError, NotADirectoryError, PermissionError; BadInput for an archive that is none.

    The listing tells sizes and signatures too: asking for each of 100,000 files would take
    hours on an object store. In a name that is not UTF-8, the odd bytes are written \\udcXX.
    """
    local, zipped = local_path(url), split_zip_url(url)
    if local is not None:
        rows = _walk(local)
    elif zipped is not None:
        rows = _look_into_archive(*zipped)
    elif is_http(url):
        rows = _follow_links(url)
    else:
        fs, root = file_system(url)
        rows = _bucket_rows(fs, root) if "s3" in fs.protocol else _list_elsewhere(fs, root)
    files = _table(rows).sort_by("path")
    pa.default_memory_pool().release_unused()  # the unsorted rows, 100 MiB of a million files
    return files


def child_url(url: str, path: str) -> str:
    """Give the URL of what lies below a folder: in zip://folder::s3://bucket/archive.zip, in the middle."""
    before, after = _around(url)
    return f"{before}{quote(path) if is_http(url) else path}{after}"


def child_urls(url: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give the URL of each path below a folder."""
    before, after = _around(url)
    if is_http(url):
        quoted = [pa.array(map(quote, chunk.to_pylist()), pa.string()) for chunk in paths.chunks]
        paths = pa.chunked_array(quoted, pa.string())
    return pc.binary_join_element_wise(pa.scalar(before), paths, pa.scalar(after), "")


def _around(url: str) -> tuple[str, str]:
    """Give what stands before and after a path that lies below a folder."""
    first, chain, others = url.partition("::") if "://" in url else (url, "", "")
    return (first if first.endswith("/") else f"{first}/"), f"{chain}{others}"


def _table(rows: Iterable[ListingRow]) -> pa.Table:
    """Lay rows out in columns, some at a time: a million tuples would take a gigabyte."""
    left = iter(rows)
    batches = []
    while chunk := list(islice(left, ROWS_PER_CHUNK)):
        paths, sizes, signatures = zip(*chunk, strict=True)
        columns = [_text(paths), pa.array(sizes, pa.int64()), pa.array(signatures, pa.string())]
        batches.append(pa.record_batch(columns, schema=LISTING_SCHEMA))
    return pa.Table.from_batches(batches, LISTING_SCHEMA)


def _text(names: Iterable[str]) -> pa.Array:
    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:
        return pa.array([name.encode("utf-8", "backslashreplace").decode() for name in names], pa.string())


def _walk(root: Path) -> Iterator[ListingRow]:
    """Walk a folder on this machine, each folder once, links followed.

    fsspec's own walk leaves out folders that are links or may not be read, without a word.
    A link that leads nowhere, a pipe or a device is listed without a size.
    """
    top = root.stat()
    waiting, seen = [("", str(root))], {(top.st_dev, top.st_ino)}
    while waiting:
        prefix, folder = waiting.pop()
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            if prefix:
                continue  # somebody removed it since its parent was listed
            raise
        with entries:
            for entry in entries:
                found = _stat(entry)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    if (found.st_dev, found.st_ino) not in seen:
                        seen.add((found.st_dev, found.st_ino))
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif found is not None and stat.S_ISREG(found.st_mode):
                    size = found.st_size
                    yield prefix + entry.name, size, f"{size}-{found.st_mtime_ns}"
                else:
                    yield prefix + entry.name, None, None


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Follow a link to what it names; None if it leads nowhere, or in a circle."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _look_into_archive(folder: str, archive: str) -> Iterator[ListingRow]:
    directory = read_directory(*file_system(archive))
    prefix = f"{folder}/" if folder else ""
    if folder in directory.row_of:
        raise NotADirectoryError(f"zip://{folder}::{archive}")
    if not any(name.startswith(prefix) for name in directory.row_of) and folder:
        raise FileNotFoundError(f"zip://{folder}::{archive}")
    sizes, crcs = directory.columns["size_bytes"], directory.columns["crc"]
    for name, row in directory.row_of.items():
        if name.startswith(prefix) and not name.endswith("/"):
            yield name[len(prefix) :], int(sizes[row]), f"{sizes[row]}-{crcs[row]:08x}"


def _follow_links(url: str) -> Iterator[ListingRow]:
    """Walk the index pages of a web server; they tell names only.

    Links elsewhere, and those that sort the page, are left out. The paths are plain text, not quoted.
    """
    fs, root = file_system(url)
    root = quote(unquote(root), safe="/:@[]").rstrip("/")  # as the links will be
    waiting, seen = [""], {""}
    while waiting:
        folder = waiting.pop()
        for link in _links(fs, root, folder):
            path = _path_of_link(html.unescape(link), root)
            if path in seen:
                continue
            seen.add(path)
            if path.endswith("/"):
                waiting.append(path)
            elif path:
                yield path, None, None


def _links(fs: AbstractFileSystem, root: str, folder: str) -> list[str]:
    """List what the page of a folder links to; nothing if a link to that folder leads nowhere."""
    with translate_server_errors(root):
        try:
            links: list[str] = fs.ls(f"{root}/{quote(folder)}", detail=False)
        except FileNotFoundError:
            if folder:
                return []
            raise (NotADirectoryError if fs.exists(root) else FileNotFoundError)(root) from None
    return links


def _path_of_link(link: str, root: str) -> str:
    """Give the path that a link names below a folder; none for links elsewhere, or to the page in another order."""
    quoted = link.removeprefix(f"{root}/")
    if quoted == link or "?" in quoted or "#" in quoted or ".." in quoted.split("/"):
        return ""
    return unquote(quoted.replace("/./", "/").removeprefix("./"))


def list_bucket(fs: AbstractFileSystem, root: str) -> Iterator[tuple[str, int, str]]:
    """List path, size and ETag below a folder of an S3 bucket, page by page, in order of their paths.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError.

    s3fs's own `find` holds a dict for each object.
    """
    bucket, key, _ = fs.split_path(root)
    prefix = f"{key.rstrip('/')}/" if key else ""
    token, is_empty = "", True
    while True:
        more = {"ContinuationToken": token} if token else {}
        page = fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=KEYS_PER_PAGE, **more)
        for it in page.get("Contents", ()):
            is_empty = False
            if not it["Key"].endswith("/"):  # what consoles make to show an empty folder
                yield it["Key"][len(prefix) :], it["Size"], it["ETag"].strip('"')
        token = page.get("NextContinuationToken", "")
        if not token:
            break
    if is_empty and key:
        raise (NotADirectoryError if fs.exists(root) else FileNotFoundError)(f"s3://{root}")


def _bucket_rows(fs: AbstractFileSystem, root: str) -> Iterator[ListingRow]:
    for path, size, tag in list_bucket(fs, root):
        yield path, size, f"{size}-{tag}"


def _list_elsewhere(fs: AbstractFileSystem, root: str) -> Iterator[ListingRow]:
    fs.invalidate_cache()
    found = fs.find(root, detail=True)
    if root in found:
        raise NotADirectoryError(root)
    if not found and not fs.exists(root):
        raise FileNotFoundError(root)
    for path, info in found.items():
        size, tag = info.get("size"), info.get("ETag") or info.get("etag")
        yield path.removeprefix(root).lstrip("/"), size, f"{size}-{tag}" if tag else None
