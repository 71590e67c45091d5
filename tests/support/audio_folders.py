"""Small folders and archives of audio, for tests of where tracks come from."""

import zipfile
from collections.abc import Sequence
from pathlib import Path


def write_files(folder: Path, names: Sequence[str], content: bytes = b"") -> Path:
    """Write files of one content below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_folder(folder: Path, archive: Path, method: int = zipfile.ZIP_STORED) -> Path:
    """Pack a folder's files into an archive, below the folder's own name as publishers do."""
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            packed.write(path, path.relative_to(folder.parent))
    return archive
