"""What lies below a folder, on any fsspec URL, in one listing."""

import os
from pathlib import Path

import fsspec

from store.files import join, local_path


def find_files(url: str) -> dict[str, int | None]:
    """List all files below a folder: path relative to it -> size in bytes, null if not told.

    Raises: FileNotFoundError, NotADirectoryError, PermissionError.

    The listing tells the sizes too: asking for each of 100,000 files would take hours on
    an object store.
    """
    local = local_path(url)
    return _find_remote(url) if local is None else _find_local(local)


def below(url: str, path: str) -> str:
    """Give the URL of what lies below a folder: in zip://folder::s3://bucket/archive.zip, in the middle."""
    if "://" not in url:
        return join(url, path)
    first, *others = url.split("::")
    return "::".join([f"{first}{'' if first.endswith('/') else '/'}{path}", *others])


def _find_remote(url: str) -> dict[str, int | None]:
    fs, root = fsspec.url_to_fs(url)
    found = fs.find(root, detail=True)
    if root in found:
        raise NotADirectoryError(url)
    if not found and not fs.exists(root):
        raise FileNotFoundError(url)
    return {path.removeprefix(root).lstrip("/"): info.get("size") for path, info in found.items()}


def _find_local(root: Path) -> dict[str, int | None]:
    """Walk a folder on this machine, each folder once, links followed.

    fsspec's own walk leaves out folders that are links or may not be read, without a word.
    A link that leads nowhere is listed without a size.
    """
    sizes: dict[str, int | None] = {}
    waiting, seen = [("", root)], set()
    while waiting:
        prefix, folder = waiting.pop()
        identity = (folder.stat().st_dev, folder.stat().st_ino)
        if identity in seen:
            continue
        seen.add(identity)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        for entry in entries:
            if entry.is_dir():
                waiting.append((f"{prefix}{entry.name}/", Path(entry)))
            else:
                sizes[prefix + entry.name] = entry.stat().st_size if entry.is_file() else None
    return sizes
