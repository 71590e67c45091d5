"""A backup put back: checked whole before anything is written, and nothing that exists is overwritten."""

from pathlib import Path

from flows.recovery.manifest import DATABASE, MODELS, RUNS, BackedUpFile, Manifest, read_manifest
from flows.services.prefect_database import configured_url, own_path, sqlite_path
from store.errors import BadInput
from store.fs.copying import copy_file, hash_url
from store.fs.files import absolute, join
from store.model_registry import CHAMPION_FILE

MAX_NAMED = 3


def restore_backup(backup: str, models: str, runs: str, *, with_database: bool = True) -> list[str]:
    """Copy a backup back; return lines about it. A file that is there already, with the same bytes, is left.

    Raises: BadInput if the backup is incomplete or damaged, or another file is where one of its files belongs.
    """
    backup = absolute(backup)
    manifest = read_manifest(backup)
    if not with_database:
        kept = [it for it in manifest.files if not it.name.startswith(f"{DATABASE}/")]
        manifest = manifest.model_copy(update={"files": kept})
    targets = {it.name: _target(it.name, models, runs) for it in manifest.files}
    _check_intact(backup, manifest)
    missing = _check_free(manifest, targets)
    # The champion's pointer last: it names a version.
    for it in sorted(missing, key=lambda it: it.name == f"{MODELS}/{CHAMPION_FILE}"):
        copy_file(join(backup, it.name), targets[it.name])
    return [
        f"{backup} of {manifest.made:%Y-%m-%d %H:%M} UTC: {len(missing):,} files restored, "
        f"{len(manifest.files) - len(missing):,} were there",
        *(f"{name}: {count:,}" for name, count in _count(manifest, models, runs)),
    ]


def _target(name: str, models: str, runs: str) -> str:
    folder, _, rest = name.partition("/")
    if not rest or ".." in rest.split("/") or folder not in (MODELS, RUNS, DATABASE):
        raise BadInput(f"{name}: no file of a backup; its list was changed: use another backup")
    if folder == DATABASE:
        return str(_database_path(rest))
    return join(absolute(models if folder == MODELS else runs), rest)


def _database_path(name: str) -> Path:
    """Return where `serve` looks for the database: at the configured path, or under its name in Prefect's folder."""
    configured = sqlite_path() if configured_url() is not None else None
    return configured or own_path().with_name(name)


def _check_intact(backup: str, manifest: Manifest) -> None:
    for it in manifest.files:
        try:
            found = hash_url(join(backup, it.name))
        except FileNotFoundError:
            raise BadInput(
                f"{join(backup, it.name)}: missing; nothing was restored: use another backup"
            ) from None
        if found != (it.sha256, it.size_bytes):
            raise BadInput(
                f"{join(backup, it.name)}: other bytes than were backed up; nothing was restored: use another backup"
            )


def _check_free(manifest: Manifest, targets: dict[str, str]) -> list[BackedUpFile]:
    """Return the files that are not there. Raises: BadInput if another file is where one belongs."""
    missing, others = [], []
    for it in manifest.files:
        try:
            found = hash_url(targets[it.name])
        except FileNotFoundError:
            missing.append(it)
            continue
        if found != (it.sha256, it.size_bytes):
            others.append(targets[it.name])
    if others:
        more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
        raise BadInput(
            f"{', '.join(others[:MAX_NAMED])}{more}: exist with other content, and are not overwritten; move them "
            "away, or restore elsewhere with --models and --runs, and with --no-database"
        )
    return missing


def _count(manifest: Manifest, models: str, runs: str) -> list[tuple[str, int]]:
    places = {MODELS: models, RUNS: runs, DATABASE: str(_database_path(DATABASE).parent)}
    return [
        (place, count)
        for name, place in places.items()
        if (count := sum(it.name.startswith(f"{name}/") for it in manifest.files))
    ]
