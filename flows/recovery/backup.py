"""A backup of what cannot be computed again: models, the champion, tagging runs with their journals, Prefect's records.

The store is not part of it: it is as large as the music allows, and a build makes it again.
"""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import prefect

from flows.recovery.manifest import (
    DATABASE,
    MANIFEST_FILE,
    MODELS,
    RUNS,
    BackedUpFile,
    Manifest,
    write_manifest,
)
from flows.services.prefect_database import configured_url, sqlite_path
from store.errors import BadInput, ServiceUnavailable
from store.fs.copying import copy_file, list_files
from store.fs.files import absolute, exists, join
from store.model_registry import CHAMPION_FILE


def make_backup(target: str, models: str, runs: str) -> list[str]:
    """Copy models, runs and Prefect's sqlite database into a new folder; return lines about them.

    Raises: BadInput if there is a backup already, or nothing to copy; ServiceUnavailable if the database is locked.
    """
    target = absolute(target)
    if exists(join(target, MANIFEST_FILE)):
        raise BadInput(f"{target}: is a backup already; name a new folder, such as one with the date")
    made = datetime.now(UTC)
    files = [
        *_copy_folder(models, target, MODELS),
        *_copy_folder(runs, target, RUNS),
        *_copy_database(target),
    ]
    if not files:
        raise BadInput(f"{models}, {runs}: nothing to back up; name the folders with --models and --runs")
    manifest = Manifest(made=made, prefect=prefect.__version__, files=files)
    write_manifest(target, manifest)
    return [*_describe(manifest, target), *_other_database()]


def _copy_folder(source: str, target: str, name: str) -> Iterator[BackedUpFile]:
    """Copy all files of a folder, the champion's pointer first: the versions that it names are there already."""
    source = absolute(source)
    for file in sorted(list_files(source), key=lambda it: (it != CHAMPION_FILE, it)):
        try:
            digest, size = copy_file(join(source, file), join(target, name, file))
        except FileNotFoundError:  # removed since the folder was listed
            continue
        yield BackedUpFile(name=f"{name}/{file}", sha256=digest, size_bytes=size)


def _copy_database(target: str) -> Iterator[BackedUpFile]:
    path = sqlite_path()
    if path is None or not path.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        copy_sqlite(path, copy)
        digest, size = copy_file(str(copy), join(target, DATABASE, path.name))
    yield BackedUpFile(name=f"{DATABASE}/{path.name}", sha256=digest, size_bytes=size)


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database as it is at one instant, while a server writes into it. Raises: ServiceUnavailable if locked."""
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as database,
            closing(sqlite3.connect(target)) as copy,
        ):
            database.backup(copy)
    except sqlite3.OperationalError as why:
        raise ServiceUnavailable(
            f"{source}: cannot be copied now ({why}); end what keeps it locked, then run the same command again"
        ) from None


def _describe(manifest: Manifest, target: str) -> list[str]:
    counts = {
        name: sum(it.name.startswith(f"{name}/") for it in manifest.files)
        for name in (MODELS, RUNS, DATABASE)
    }
    parts = ", ".join(f"{count:,} files of {name}" for name, count in counts.items())
    return [f"{target}: {parts}, {manifest.size_bytes / 2**20:,.1f} MiB"]


def _other_database() -> list[str]:
    """Return what to run for a database that is no sqlite file."""
    url = configured_url()
    if url is None or url.startswith("sqlite"):
        return []
    return [
        "Prefect's database is not part of it: pg_dump --format=custom --file=prefect.dump DATABASE "
        "(and pg_restore --clean --dbname=DATABASE prefect.dump)"
    ]
