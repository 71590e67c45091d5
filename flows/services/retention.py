"""What grows without end in the Prefect server's database, removed in batches: runs, logs, artifacts, events.

The server removes it, too, where its own vacuum is switched on (`prefect_server.RETENTION`). This is for a server
that was started in another way, for a shorter time, and to give the space back to the disk.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from prefect.server.database import PrefectDBInterface, provide_database_interface
from prefect.server.services import db_vacuum
from prefect.settings import (
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_EVENTS_RETENTION_PERIOD,
    PREFECT_SERVER_SERVICES_DB_VACUUM_BATCH_SIZE,
    PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD,
    temporary_settings,
)
from pydantic import BaseModel

from flows.services.prefect_database import SQLITE_URL, check_database, configured_url, own_path, sqlite_path
from flows.settings import PruneSettings
from store.errors import BadInput, ServiceUnavailable

COUNTED = {  # tables of Prefect's, and what they are called here
    "FlowRun": "runs",
    "TaskRun": "task runs",
    "Log": "log lines",
    "Artifact": "artifacts",
    "Event": "events",
}


class PruneSummary(BaseModel, frozen=True):
    """The rows that were removed, and that are left, and the size of a sqlite file."""

    removed: dict[str, int]
    left: dict[str, int]
    bytes_before: int | None = None
    bytes_after: int | None = None

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        lines = [f"removed {self.removed[it]:,} {it}, {self.left[it]:,} left" for it in COUNTED.values()]
        if self.bytes_before is not None and self.bytes_after is not None:
            lines.append(
                f"database file: {self.bytes_before / 2**20:.1f} MiB, now {self.bytes_after / 2**20:.1f}"
            )
        return lines


def prune_database(settings: PruneSettings) -> PruneSummary:
    """Remove runs that ended long ago, with their logs and artifacts, and old events.

    Raises: BadInput if the database is not known here; ServiceUnavailable if another process keeps it locked.
    """
    path = sqlite_path()
    if path is not None:
        _check_sqlite(path)
    seconds = settings.keep_days * 86_400
    changes = {
        PREFECT_SERVER_DATABASE_CONNECTION_URL: configured_url() or f"{SQLITE_URL}{own_path()}",
        PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD: seconds,
        PREFECT_SERVER_EVENTS_RETENTION_PERIOD: seconds,
        PREFECT_SERVER_SERVICES_DB_VACUUM_BATCH_SIZE: settings.batch_size,
    }
    bytes_before = path and path.stat().st_size
    with temporary_settings(changes):
        before, left = asyncio.run(_prune())
    if path is not None and settings.compact:
        compact(path)
    removed = {name: before[name] - count for name, count in left.items()}
    return PruneSummary(
        removed=removed, left=left, bytes_before=bytes_before, bytes_after=path and path.stat().st_size
    )


def compact(path: Path) -> None:
    """Give the free pages of a sqlite file back to the disk. Raises: ServiceUnavailable if it is in use."""
    try:
        with closing(sqlite3.connect(path, timeout=5.0, isolation_level=None)) as database:
            database.execute("VACUUM")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as why:
        raise ServiceUnavailable(
            f"{path}: cannot be compacted now ({why}); the rows are removed, and their space will be used again: to "
            "give it back to the disk, end the server and run this again"
        ) from None


async def _prune() -> tuple[dict[str, int], dict[str, int]]:
    db = provide_database_interface()
    before = await _count(db)
    for vacuum in (
        db_vacuum.vacuum_old_flow_runs,
        db_vacuum.vacuum_events_with_retention_overrides,
        db_vacuum.vacuum_old_events,
        db_vacuum.vacuum_orphaned_logs,
        db_vacuum.vacuum_orphaned_artifacts,
        db_vacuum.vacuum_stale_artifact_collections,
    ):
        await vacuum(db=db)
    return before, await _count(db)


async def _count(db: PrefectDBInterface) -> dict[str, int]:
    counts = {}
    async with db.session_context() as session:
        for table, name in COUNTED.items():
            query = sa.select(sa.func.count()).select_from(getattr(db, table))
            counts[name] = int(await session.scalar(query) or 0)
    return counts


def _check_sqlite(path: Path) -> None:
    if not path.exists():
        raise BadInput(
            f"{path}: no database of a Prefect server is there; run this on the server's machine, with its "
            "PREFECT_SERVER_DATABASE_CONNECTION_URL if it has one, or have the server do it itself: "
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs"
        )
    check_database(path)
