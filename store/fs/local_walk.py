"""The files below a local folder, in order of their paths: what is held does not grow with their number."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from store.fs.files import join
from store.fs.signatures import signature_from_stat

Problem = Literal[
    "outside-root", "broken-link", "not-a-file", "name-not-utf-8", "name-breaks-url", "no-permission"
]
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


@dataclass(frozen=True)
class _Tree:
    root: str
    real_root: str
    include: Callable[[str], bool]
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


def walk_folder(root: Path, *, include: Callable[[str], bool], links: Links) -> Iterator[FoundFile]:
    """Yield the included files below a folder, in order of their paths.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError for the root itself.

    `include` is called with the paths of files and, with "/" at their ends, of folders; it must not
    include what lies in a folder that it excludes. A link to a folder is followed if that folder is not
    walked under its own path anyway; two links to one folder are followed once. With links="inside" the same
    holds for links to files, and a link that leaves the root is a problem. With links="all" every
    link to a file is listed, wherever it leads. Odd bytes in a name that is not UTF-8 become \\udcXX.
    """
    tree = _Tree(str(root), os.path.realpath(root), include, links)
    open_folders = [("", False, iter(_list_folder(tree.root)))]  # only the folders above the current entry
    linked: set[tuple[int, int]] = set()  # folders reached through links, by device and inode
    while open_folders:
        prefix, through_link, names = open_folders[-1]
        name = next(names, None)
        if name is None:
            open_folders.pop()
            continue
        path = prefix + name
        if not include(escape_name(path)):
            continue
        if not name.endswith("/"):
            file = _examine_file(tree, path)
            if file is not None:
                yield file
            continue
        access = _folder_access(tree, path, through_link)
        if access is None or (access == "link" and not _add_if_new(tree, path, linked)):
            continue
        if access == "outside":
            yield tree.unusable(path, "outside-root")
            continue
        try:
            open_folders.append((path, access == "link", iter(_list_folder(tree.full(path)))))
        except PermissionError:
            yield tree.unusable(path, "no-permission")
        except (FileNotFoundError, NotADirectoryError):
            continue  # removed since its parent was listed


def escape_name(name: str) -> str:
    """Return a name as a table can hold it: odd bytes of a name that is not UTF-8 as \\udcXX."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def _list_folder(folder: str) -> list[str]:
    """Return the names in a folder in the order of the paths below it; those of folders end in "/"."""
    with os.scandir(folder) as entries:
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
    return None if not target or tree.include(f"{target}/") else "link"


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
    """Return the record of an entry that is no folder; None if it is gone, or listed under another path."""
    full = tree.full(path)
    try:
        status = os.lstat(full)
        if stat.S_ISLNK(status.st_mode):
            status = os.stat(full)
            if tree.links == "inside":
                target = tree.real_path(path)
                if target is None:
                    return tree.unusable(path, "outside-root")
                if tree.include(target):
                    return None
    except PermissionError:
        return tree.unusable(path, "no-permission")
    except OSError as error:
        if error.errno not in BROKEN_LINK_CODES:
            raise
        return tree.unusable(path, "broken-link") if os.path.islink(full) else None
    if not stat.S_ISREG(status.st_mode):
        return tree.unusable(path, "not-a-file")
    if escape_name(full) != full:
        return tree.unusable(path, "name-not-utf-8")
    return FoundFile(path, full, status.st_size, signature_from_stat(status))
