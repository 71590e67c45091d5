"""The files below a folder, on any fsspec URL: as one table, or one after the other."""

import errno
import html
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
from fsspec import AbstractFileSystem

from store.fs.files import (
    file_system,
    is_http,
    last_part,
    local_path,
    split_zip_url,
    translate_server_errors,
)
from store.fs.local_walk import ALL_FILES, FoundFile, PathFilter, Problem, describe_file, walk_folder
from store.fs.signatures import object_signature, read_signature, require_taggable_url, size_of_signature
from store.fs.zip_archive import read_directory

__all__ = [
    "LISTING_SCHEMA",
    "FoundFile",
    "PathFilter",
    "child_url",
    "child_urls",
    "list_files",
    "stream_files",
]

LISTING_SCHEMA = pa.schema([("path", pa.string()), ("size_bytes", pa.int64()), ("signature", pa.string())])
ROWS_PER_CHUNK = 1 << 14
KEYS_PER_PAGE = 1_000  # the most that S3 returns at once
URL_SEPARATORS = ("::", "?versionId=")  # a URL would end there

ListingRow = tuple[str, int | None, str | None]


def list_files(
    url: str, *, selection: PathFilter = ALL_FILES, unusable: list[FoundFile] | None = None
) -> pa.Table:
    """List the files below a folder, in order of their paths relative to it.

    Shapes: columns of LISTING_SCHEMA; null is what the server does not report.
    Raises: FileNotFoundError, NotADirectoryError, PermissionError; BadInput for a file that is no archive.

    Sizes and signatures come with the listing: requests for each of 100,000 files would take hours on an
    object store. Links on a local disk are followed, wherever they lead, each folder once; a broken link,
    a pipe or a device is listed without a size. A local folder that may not be listed is added to `unusable`, or
    is an error if that is None; so are names that no table can hold.
    """
    local, zipped = local_path(url), split_zip_url(url)
    rows: Iterable[ListingRow]
    if local is not None:
        rows = _local_rows(local, selection, unusable)
    elif zipped is not None:
        rows = _archive_rows(*zipped)
    elif is_http(url):
        rows = _web_rows(url)
    else:
        fs, root = file_system(url)
        rows = list_bucket(fs, root) if "s3" in fs.protocol else _other_rows(fs, root)
    files = _table(rows if local is not None else _selected(rows, selection)).sort_by("path")
    pa.default_memory_pool().release_unused()  # the unsorted rows, 100 MiB of a million files
    return files


def stream_files(source: str, *, selection: PathFilter = ALL_FILES) -> Iterator[FoundFile]:
    """Yield the included files below a local folder or an S3 URL, in order of their paths; or the file it names.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError for the source itself;
        BadInput for another kind of URL.

    What is held does not grow with the number of files.
    """
    root = local_path(source)
    if root is None:
        require_taggable_url(source)
        yield from _bucket_files(source, selection)
    elif root.is_file():
        yield from _selected_file(describe_file(root), selection)
    else:
        yield from walk_folder(root, selection=selection, links="inside")


def _bucket_files(source: str, selection: PathFilter) -> Iterator[FoundFile]:
    fs, bucket = file_system(source)
    try:
        with translate_server_errors(source):
            for path, size_bytes, signature in _selected(list_bucket(fs, bucket), selection):
                yield FoundFile(path, child_url(source, path), size_bytes, signature, _url_problem(path))
    except NotADirectoryError:
        name, signature = last_part(source), read_signature(source)
        file = FoundFile(name, source, size_of_signature(signature), signature, _url_problem(name))
        yield from _selected_file(file, selection)


def _url_problem(path: str) -> Problem | None:
    return "name-breaks-url" if any(it in path for it in URL_SEPARATORS) else None


def _selected_file(file: FoundFile, selection: PathFilter) -> Iterator[FoundFile]:
    if selection.includes(file.path):
        yield file
    else:
        selection.pass_over(file.path, "not-included")


def _selected(rows: Iterable[ListingRow], selection: PathFilter) -> Iterator[ListingRow]:
    for row in rows:
        if selection.includes(row[0]):
            yield row
        else:
            selection.pass_over(row[0], "not-included")


def child_url(url: str, path: str) -> str:
    """Return the URL of a file below a folder; of zip://folder::ARCHIVE, the path goes before the "::"."""
    before, after = _split_around_path(url)
    return f"{before}{quote(path) if is_http(url) else path}{after}"


def child_urls(url: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the URL of each path below a folder."""
    before, after = _split_around_path(url)
    if is_http(url):
        quoted = [pa.array(map(quote, chunk.to_pylist()), pa.string()) for chunk in paths.chunks]
        paths = pa.chunked_array(quoted, pa.string())
    return pc.binary_join_element_wise(pa.scalar(before), paths, pa.scalar(after), "")


def _split_around_path(url: str) -> tuple[str, str]:
    """Return what precedes and what follows the path in the URL of a file below a folder."""
    first, chain, others = url.partition("::") if "://" in url else (url, "", "")
    return (first if first.endswith("/") else f"{first}/"), f"{chain}{others}"


def _table(rows: Iterable[ListingRow]) -> pa.Table:
    """Convert rows to columns, some at a time: a million tuples would take a gigabyte."""
    remaining = iter(rows)
    batches = []
    while chunk := list(islice(remaining, ROWS_PER_CHUNK)):
        paths, sizes, signatures = zip(*chunk, strict=True)
        columns = [
            pa.array(paths, pa.string()),
            pa.array(sizes, pa.int64()),
            pa.array(signatures, pa.string()),
        ]
        batches.append(pa.record_batch(columns, schema=LISTING_SCHEMA))
    return pa.Table.from_batches(batches, LISTING_SCHEMA)


def _local_rows(root: Path, selection: PathFilter, unusable: list[FoundFile] | None) -> Iterator[ListingRow]:
    for file in walk_folder(root, selection=selection, links="all"):
        if unusable is not None and file.problem in ("not-listable", "name-not-utf-8"):
            unusable.append(file)
        elif file.problem == "not-listable":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file.url.removesuffix("/"))
        else:
            yield file.path, file.size_bytes, file.signature


def _archive_rows(folder: str, archive: str) -> Iterator[ListingRow]:
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


def _web_rows(url: str) -> Iterator[ListingRow]:
    """Walk the index pages of a web server, which contain names only.

    Links to other places, and those that sort the page, are left out. The paths are plain text, not quoted.
    """
    fs, root = file_system(url)
    root = quote(unquote(root), safe="/:@[]").rstrip("/")  # as the links will be
    pending, seen = [""], {""}
    while pending:
        folder = pending.pop()
        for link in _links(fs, root, folder):
            path = _path_of_link(html.unescape(link), root)
            if path in seen:
                continue
            seen.add(path)
            if path.endswith("/"):
                pending.append(path)
            elif path:
                yield path, None, None


def _links(fs: AbstractFileSystem, root: str, folder: str) -> list[str]:
    """Return the links on the page of a folder; none if that folder does not exist."""
    with translate_server_errors(root):
        try:
            links: list[str] = fs.ls(f"{root}/{quote(folder)}", detail=False)
        except FileNotFoundError:
            if folder:
                return []
            raise (NotADirectoryError if fs.exists(root) else FileNotFoundError)(root) from None
    return links


def _path_of_link(link: str, root: str) -> str:
    """Return the path below a folder that a link names; "" for a link to another place or another order."""
    quoted = link.removeprefix(f"{root}/")
    if quoted == link or "?" in quoted or "#" in quoted or ".." in quoted.split("/"):
        return ""
    return unquote(quoted.replace("/./", "/").removeprefix("./"))


def list_bucket(fs: AbstractFileSystem, root: str) -> Iterator[ListingRow]:
    """Yield the objects below a folder of an S3 bucket, page by page, in order of their paths.

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
            if not it["Key"].endswith("/"):  # consoles create these to show an empty folder
                yield it["Key"][len(prefix) :], it["Size"], object_signature(it["Size"], it["ETag"])
        token = page.get("NextContinuationToken", "")
        if not token:
            break
    if is_empty and key:
        raise (NotADirectoryError if fs.exists(root) else FileNotFoundError)(f"s3://{root}")


def _other_rows(fs: AbstractFileSystem, root: str) -> Iterator[ListingRow]:
    fs.invalidate_cache()
    found = fs.find(root, detail=True)
    if root in found:
        raise NotADirectoryError(root)
    if not found and not fs.exists(root):
        raise FileNotFoundError(root)
    for path, info in found.items():
        size, tag = info.get("size"), info.get("ETag") or info.get("etag")
        yield path.removeprefix(root).lstrip("/"), size, object_signature(size, tag) if tag else None
