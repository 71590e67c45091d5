"""Retention on a database with old runs: its size and the time of the UI's queries before and after.

    python -m tests.benchmarks.prune [--runs 10000]

Each run has three task runs, twenty log lines, two artifacts and six events: about what a nightly run leaves.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

TASKS, LOGS, ARTIFACTS, EVENTS = 3, 20, 2, 6
AGED, KEPT = timedelta(days=200), timedelta(days=1)
BATCH = 500
QUERY_ROUNDS = 9
Row = dict[str, Any]


async def fill(runs: int, age: timedelta) -> None:
    """Write finished runs, spread over a day that is `age` ago, with what belongs to them."""
    import sqlalchemy as sa
    from prefect.server.database import provide_database_interface

    db = provide_database_interface()
    await db.create_db()
    flow_id = uuid4()
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(sa.insert(db.Flow), [{"id": flow_id, "name": f"nightly-{flow_id}", "tags": []}])
    for first in range(0, runs, BATCH):
        tables: dict[str, list[Row]] = defaultdict(list)
        for number in range(first, min(first + BATCH, runs)):
            at = datetime.now(UTC) - age + timedelta(seconds=number % 86_400)
            for table, rows in rows_of_run(flow_id, at).items():
                tables[table] += rows
        async with db.session_context(begin_transaction=True) as session:
            for table, rows in tables.items():
                await session.execute(sa.insert(getattr(db, table)), rows)


def rows_of_run(flow_id: UUID, at: datetime) -> dict[str, list[Row]]:
    """Return the rows of one run, by table."""
    run, ended = uuid4(), at + timedelta(minutes=10)
    state = {"state_type": "COMPLETED", "state_name": "Completed", "start_time": at, "end_time": ended}
    message = "Building: 40 of 51 tracks, 2.5 tracks/s, 4 s left; 0.3 h of audio, 0 rejected"
    resource = {
        "resource_id": f"prefect.flow-run.{run}",
        "related_resource_ids": [],
        "related": [],
        "payload": {},
    }
    return {
        "FlowRun": [{"id": run, "flow_id": flow_id, "name": str(run)[:8], **state}],
        "TaskRun": [
            {"flow_run_id": run, "name": "t", "task_key": "t", "dynamic_key": str(n), **state}
            for n in range(TASKS)
        ],
        "Log": [
            {"flow_run_id": run, "name": "prefect", "level": 20, "message": message, "timestamp": at}
            for _ in range(LOGS)
        ],
        "Artifact": [{"flow_run_id": run, "type": "table", "data": "1," * 500} for _ in range(ARTIFACTS)],
        "Event": [
            {
                "id": uuid4(),
                "occurred": at,
                "event": "prefect.flow-run.Running",
                "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
                "received": at,
                "recorded": at,
                "follows": None,
                **resource,
            }
            for _ in range(EVENTS)
        ],
    }


async def query_ms() -> float:
    """Return the median time of what the UI's page of runs asks for: the latest 50, and the count of all."""
    import sqlalchemy as sa
    from prefect.server.database import provide_database_interface

    db, times = provide_database_interface(), []
    for _ in range(QUERY_ROUNDS):
        started = time.perf_counter()
        async with db.session_context() as session:
            latest = sa.select(db.FlowRun).order_by(db.FlowRun.start_time.desc()).limit(50)
            (await session.execute(latest)).scalars().all()
            await session.scalar(sa.select(sa.func.count()).select_from(db.FlowRun))
            await session.scalar(sa.select(sa.func.count()).select_from(db.Event))
        times.append(time.perf_counter() - started)
    return 1_000 * statistics.median(times)


def main(runs: int, home: Path, migrated: Path | None) -> None:
    """Fill a database, prune it, and print what changed."""
    from flows.services.prefect_database import own_path
    from flows.services.retention import prune_database
    from flows.settings import PruneSettings

    path = own_path(home)
    if migrated is not None:
        shutil.copy(migrated, path)
    os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{path}"
    from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    with temporary_settings({PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}):
        asyncio.run(fill(runs, AGED))
        asyncio.run(fill(runs // 100, KEPT))
        before = path.stat().st_size, asyncio.run(query_ms())
        for compact in (False, True):
            started, cpu = time.perf_counter(), time.process_time()
            summary = prune_database(PruneSettings(keep_days=30, compact=compact))
            took = f"{time.perf_counter() - started:.1f} s, {time.process_time() - cpu:.1f} s of CPU"
            print(f"prune{' and compact' * compact}: {took}; {'; '.join(summary.lines())}")
            print(f"  {before[0] / 2**20:.1f} MiB -> {path.stat().st_size / 2**20:.1f} MiB")
        print(f"  queries of the page of runs: {before[1]:.1f} ms -> {asyncio.run(query_ms()):.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--migrated", type=Path, help="a database to begin with: making one takes a minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PREFECT_HOME"] = folder
        main(options.runs, Path(folder), options.migrated)
