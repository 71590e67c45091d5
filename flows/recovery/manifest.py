"""The list of what a backup holds, written last: a folder without it is not a backup."""

from datetime import datetime

from pydantic import BaseModel, ValidationError

from store.errors import BadInput
from store.fs.files import join, read_bytes, write_atomic

MANIFEST_FILE = "backup.json"
MODELS, RUNS, DATABASE = "models", "tagging", "prefect"  # the folders of a backup


class BackedUpFile(BaseModel, frozen=True, extra="forbid"):
    """A file of a backup, by its name in the folder of the backup."""

    name: str
    sha256: str
    size_bytes: int


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """What a backup holds, when it was made, and of which Prefect the database is."""

    made: datetime
    prefect: str
    files: list[BackedUpFile]

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(it.size_bytes for it in self.files)


def write_manifest(backup: str, manifest: Manifest) -> None:
    """Complete a backup."""
    write_atomic(join(backup, MANIFEST_FILE), manifest.model_dump_json(indent=1).encode())


def read_manifest(backup: str) -> Manifest:
    """Raise BadInput if a folder is not a complete backup."""
    try:
        return Manifest.model_validate_json(read_bytes(join(backup, MANIFEST_FILE)))
    except FileNotFoundError:
        raise BadInput(
            f"{backup}: not a complete backup ({MANIFEST_FILE} is missing); name the folder that `spectrogram-one "
            "backup` wrote"
        ) from None
    except ValidationError as why:
        raise BadInput(
            f"{join(backup, MANIFEST_FILE)}: damaged ({why.errors()[0]['msg']}); use another backup"
        ) from None
