"""Files below a folder or bucket, one after the other: what is held does not grow with their number.

The order is that of their paths, on a disk as in a bucket.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.errors import BadInput
from store.fs.files import file_system, join, local_path, translate_server_errors
from store.fs.listing import child_url, list_bucket

Problem = Literal[
    "outside-root", "broken-link", "not-a-file", "name-not-utf-8", "name-breaks-url", "no-permission"
]
URL_SEPARATORS = ("::", "?versionId=")  # a URL would end there
LEADS_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a source, or why what bears its name cannot be used.

    A path that ends in "/" is a folder: only those with a problem are told.
    """

    path: str  # below the source
    url: str
    size_bytes: int | None
    signature: str | None  # another one: another content, or another file
    problem: Problem | None = None


@dataclass(frozen=True)
class _Tree:
    root: str
    real_root: str
    include: Callable[[str], bool]

    def full(self, path: str) -> str:
        """Give the path on this machine of what lies below the root."""
        return join(self.root, path.removesuffix("/"))

    def within(self, path: str) -> str | None:
        """Say where a link leads, relative to the root; None if it leads out."""
        target = os.path.realpath(self.full(path))
        if target == self.real_root:
            return ""
        start = join(self.real_root, "")
        return _text(target.removeprefix(start)) if target.startswith(start) else None

    def trouble(self, path: str, problem: Problem) -> FoundFile:
        """Tell of what cannot be used."""
        return FoundFile(_text(path), _text(join(self.root, path)), None, None, problem)


def stream_files(source: str, *, include: Callable[[str], bool] = lambda path: True) -> Iterator[FoundFile]:
    """Give the wanted files below a local folder or an S3 URL, in order of their paths.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError for the source itself;
        BadInput for another kind of URL.

    `wanted` is asked about the paths of files and, with "/" at their ends, of folders; it must not want
    what lies in a folder that it does not want. A link is followed only to what is within the source
    and not met there in its own right. In a name that is not UTF-8, the odd bytes are written \\udcXX.
    """
    root = local_path(source)
    if root is not None:
        yield from _walk(_Tree(str(root), os.path.realpath(root), include))
        return
    _refuse_other_kinds(source)
    fs, bucket = file_system(source)
    with translate_server_errors(source):
        for path, size_bytes, tag in list_bucket(fs, bucket):
            if include(path):
                problem: Problem | None = (
                    "name-breaks-url" if any(it in path for it in URL_SEPARATORS) else None
                )
                yield FoundFile(path, child_url(source, path), size_bytes, tag, problem)


def read_signature(url: str) -> str:
    """Give the signature that a file has at this moment.

    Raises: FileNotFoundError, PermissionError; BadInput for what is neither a local path nor an S3 URL.
    """
    path = local_path(url)
    if path is not None:
        return signature_from_stat(path.stat())
    _refuse_other_kinds(url)
    fs, remote = file_system(url)
    bucket, key, _ = fs.split_path(remote)
    with translate_server_errors(url):
        tag: str = fs.call_s3("head_object", Bucket=bucket, Key=key)["ETag"]
    return tag.strip('"')


def signature_from_stat(status: os.stat_result) -> str:
    """Tell a local file from what it was: the time of change moves with our own writes, which keep the rest."""
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _refuse_other_kinds(url: str) -> None:
    if not url.startswith("s3://"):
        raise BadInput(f"{url}: tags are written to local files and S3 objects; name a folder or s3:// URL")


def _walk(tree: _Tree) -> Iterator[FoundFile]:
    """Walk a folder in order; only the names in the folders above the current one are held."""
    open_folders = [("", False, iter(_names(tree.root)))]
    linked: set[tuple[int, int]] = set()  # folders that were reached through links: two may lead to one
    while open_folders:
        prefix, is_linked, names = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        path = prefix + name
        if not tree.include(_text(path)):
            continue
        if not name.endswith("/"):
            file = _look_at(tree, path)
            if file is not None:
                yield file
            continue
        way = _way_into(tree, path)
        if way is None or ((way == "link" or is_linked) and not _is_new(tree, path, linked)):
            continue
        try:
            names = iter(_names(tree.full(path)) if way != "out" else ())
        except PermissionError:
            yield tree.trouble(path, "no-permission")
        except (FileNotFoundError, NotADirectoryError):
            continue  # somebody removed it since its parent was listed
        else:
            if way == "out":
                yield tree.trouble(path, "outside-root")
            open_folders.append((path, way == "link" or is_linked, names))


def _names(folder: str) -> list[str]:
    """Give the names in a folder in the order of the paths below it; those of folders end in "/"."""
    with os.scandir(folder) as entries:
        return sorted((f"{it.name}/" if _is_folder(it) else it.name for it in entries), key=_text)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a link in a circle, or to where this user may not look
        if error.errno in (*LEADS_NOWHERE, errno.EACCES, errno.EPERM):
            return False
        raise


def _way_into(tree: _Tree, path: str) -> Literal["itself", "link", "out"] | None:
    """Say how a folder is come by; None if it is, or will be, met in its own right."""
    if not os.path.islink(tree.full(path)):
        return "itself"
    target = tree.within(path)
    if target is None:
        return "out"
    return None if not target or tree.include(f"{target}/") else "link"


def _is_new(tree: _Tree, path: str, linked: set[tuple[int, int]]) -> bool:
    try:
        status = Path(tree.full(path)).stat()
    except FileNotFoundError:
        return False
    identity = status.st_dev, status.st_ino
    known = identity in linked
    linked.add(identity)
    return not known


def _look_at(tree: _Tree, path: str) -> FoundFile | None:
    """Look at what is no folder; None if it is gone, or will be met in its own right."""
    full = tree.full(path)
    try:
        status = os.lstat(full)
        is_link = stat.S_ISLNK(status.st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return tree.trouble(path, "no-permission")
    if is_link:
        try:
            status = os.stat(full)
        except PermissionError:
            return tree.trouble(path, "no-permission")
        except OSError as error:
            if error.errno in LEADS_NOWHERE:
                return tree.trouble(path, "broken-link")
            raise
        target = tree.within(path)
        if target is None:
            return tree.trouble(path, "outside-root")
        if tree.include(target):
            return None
    if not stat.S_ISREG(status.st_mode):
        return tree.trouble(path, "not-a-file")
    if _text(full) != full:
        return tree.trouble(path, "name-not-utf-8")
    return FoundFile(path, full, status.st_size, signature_from_stat(status))


def _text(name: str) -> str:
    """Write a name so that a table can hold it."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
