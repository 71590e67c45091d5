"""The files below a local folder, in order of their paths: what is held does not grow with their number."""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.fs.disk_errors import retry_if_stale
from store.fs.files import join
from store.fs.signatures import signature_from_stat

Problem = Literal[
    "outside-root",
    "broken-link",
    "not-a-file",
    "name-not-utf-8",
    "name-breaks-url",
    "no-permission",
    "not-listable",
]
PassedOver = Literal["not-included", "link", "vanished"]
Links = Literal["inside", "all"]
BROKEN_LINK_CODES = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a source, or the reason why the entry of that name cannot be used.

    A path that ends in "/" is a folder: only folders with a problem are reported.
    """

    path: str  # below the source
    url: str
    size_bytes: int | None
    signature: str | None  # see store/fs/signatures.py
    problem: Problem | None = None


class PathFilter:
    """Which entries of a source are listed: all of them, unless a subclass decides otherwise.

    Paths are below the source; those of folders end in "/".
    """

    def includes(self, path: str) -> bool:
        """Return whether a file is listed, or the files of a folder are."""
        return True

    def enters(self, folder: str) -> bool:
        """Return whether a folder is walked: one that is not included may be, so that its files are counted."""
        return self.includes(folder)

    def pass_over(self, path: str, why: PassedOver) -> None:
        """Record an entry that is not listed: not included, a link to what is listed under another path, or gone."""


ALL_FILES = PathFilter()


@dataclass(frozen=True)
class _Tree:
    root: str
    real_root: str
    selection: PathFilter
    links: Links

    def full(self, path: str) -> str:
        """Return the path on this machine of an entry below the root."""
        return join(self.root, path.removesuffix("/"))

    def real_path(self, path: str) -> str | None:
        """Return where an entry really lies, relative to the root, links followed; None if outside the root."""
        target = os.path.realpath(self.full(path))
        if target == self.real_root:
            return ""
        start = join(self.real_root, "")
        return escape_name(target.removeprefix(start)) if target.startswith(start) else None

    def unusable(self, path: str, problem: Problem) -> FoundFile:
        """Return the record of an entry that cannot be used."""
        return FoundFile(escape_name(path), escape_name(join(self.root, path)), None, None, problem)


def walk_folder(root: Path, *, selection: PathFilter, links: Links) -> Iterator[FoundFile]:
    """Yield the included files below a folder, in order of their paths.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError for the root itself.

    A link to a folder is followed if that folder is not walked under its own path anyway; two links to one
    folder are followed once. With links="inside" the same holds for links to files, and a link that leaves
    the root is a problem. With links="all" every link to a file is listed, wherever it leads. A folder that may
    not be listed is a problem too. Odd bytes in a name that is not UTF-8 become \\udcXX.
    """
    tree = _Tree(str(root), os.path.realpath(root), selection, links)
    open_folders = [("", False, iter(_list_folder(tree.root)))]  # only the folders above the current entry
    linked: set[tuple[int, int]] = set()  # folders reached through links, by device and inode
    while open_folders:
        prefix, through_link, names = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        path = prefix + name
        if not name.endswith("/"):
            file = _examine_file(tree, path)
            if file is not None:
                yield file
            continue
        is_link = _enter_folder(tree, path, through_link, linked)
        if isinstance(is_link, FoundFile):
            yield is_link
            continue
        names_below = None if is_link is None else _list_or_pass_over(tree, path)
        if isinstance(names_below, FoundFile):
            yield names_below
        elif names_below is not None:
            open_folders.append((path, bool(is_link), iter(names_below)))


def describe_file(path: Path) -> FoundFile:
    """Return the record of a file that is a source by itself; of a link, that of the file it leads to.

    Raises: FileNotFoundError, PermissionError.
    """
    real = os.path.realpath(path)
    status = retry_if_stale(os.stat, real)
    if escape_name(real) != real:
        return FoundFile(escape_name(path.name), escape_name(real), None, None, "name-not-utf-8")
    return FoundFile(path.name, real, status.st_size, signature_from_stat(status))


def _enter_folder(
    tree: _Tree, path: str, through_link: bool, linked: set[tuple[int, int]]
) -> bool | FoundFile | None:
    """Return whether a folder is reached by a link; None if it is not walked; its record if it cannot be."""
    escaped = escape_name(path)
    if not tree.selection.includes(escaped):
        if tree.selection.enters(escaped) and not (through_link or os.path.islink(tree.full(path))):
            return False
        tree.selection.pass_over(escaped, "not-included")
        return None
    access = _folder_access(tree, path, through_link)
    if access == "outside":
        return tree.unusable(path, "outside-root")
    if access is None or (access == "link" and not _add_if_new(tree, path, linked)):
        tree.selection.pass_over(escaped, "link")
        return None
    return access == "link"


def _list_or_pass_over(tree: _Tree, path: str) -> list[str] | FoundFile | None:
    """Return the names in a folder; None if it is gone; its record if it may not be listed."""
    try:
        return _list_folder(tree.full(path))
    except PermissionError:
        if tree.selection.includes(escape_name(path)):
            return tree.unusable(path, "not-listable")
        tree.selection.pass_over(escape_name(path), "not-included")
    except (FileNotFoundError, NotADirectoryError):
        tree.selection.pass_over(escape_name(path), "vanished")  # since its parent was listed
    return None


def escape_name(name: str) -> str:
    """Return a name as a table can hold it: odd bytes of a name that is not UTF-8 as \\udcXX."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _list_folder(folder: str) -> list[str]:
    """Return the names in a folder in the order of the paths below it; those of folders end in "/"."""
    with retry_if_stale(os.scandir, folder) as entries:
        return sorted((f"{it.name}/" if _is_folder(it) else it.name for it in entries), key=escape_name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # a circular link, or a target that this user may not examine
        if error.errno in (*BROKEN_LINK_CODES, errno.EACCES, errno.EPERM):
            return False
        raise


def _folder_access(
    tree: _Tree, path: str, through_link: bool
) -> Literal["directly", "link", "outside"] | None:
    """Return how the walk reaches a folder; None if it walks that folder under its own path."""
    is_link = os.path.islink(tree.full(path))
    if not is_link and not through_link:
        return "directly"
    target = tree.real_path(path)
    if target is None:
        return "outside" if is_link and tree.links == "inside" else "link"
    return None if not target or tree.selection.includes(f"{target}/") else "link"


def _add_if_new(tree: _Tree, path: str, linked: set[tuple[int, int]]) -> bool:
    try:
        status = os.stat(tree.full(path))
    except FileNotFoundError:
        return False
    identity = status.st_dev, status.st_ino
    known = identity in linked
    linked.add(identity)
    return not known


def _examine_file(tree: _Tree, path: str) -> FoundFile | None:
    """Return the record of an entry that is no folder; None if it is passed over."""
    full, escaped = tree.full(path), escape_name(path)
    if not tree.selection.includes(escaped):
        tree.selection.pass_over(escaped, "not-included")
        return None
    try:
        status = retry_if_stale(os.lstat, full)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(full)
            if tree.links == "inside":
                target = tree.real_path(path)
                if target is None:
                    return tree.unusable(path, "outside-root")
                if tree.selection.includes(target):
                    tree.selection.pass_over(escaped, "link")
                    return None
    except PermissionError:
        return tree.unusable(path, "no-permission")
    except OSError as error:
        if error.errno not in BROKEN_LINK_CODES:
            raise
        if os.path.islink(full):
            return tree.unusable(path, "broken-link")
        tree.selection.pass_over(escaped, "vanished")
        return None
    if not stat.S_ISREG(status.st_mode):
        return tree.unusable(path, "not-a-file")
    if escape_name(full) != full:
        return tree.unusable(path, "name-not-utf-8")
    return FoundFile(path, full, status.st_size, signature_from_stat(status))
