"""Small folders and archives of audio, for tests of where tracks come from."""

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest


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


@pytest.fixture
def open_folder():
    """A folder that every user may look into, with us as a user who may not do all."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def as_nobody():
    """Root may look everywhere: call it when the files are made."""

    def step_down() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)

    yield step_down
    os.seteuid(os.getuid())
