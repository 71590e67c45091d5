"""Where the Dask scheduler and Prefect's database bend: both are real, the batches are empty.

    python -m tests.benchmarks.capacity [--batches 2000 20000] [--threads 8 64 512] [--runs 10000 100000]

Scheduler: batches that return at once, by the product's own fan-out. Its process is the flow's, too, so the CPU time
of a batch is what a flow and its scheduler spend together; memory is that process's.

Database: Postgres and a Prefect server. A build is recorded, in one commit and in ten; the rows of the first are
then copied, a day apart, until there are as many runs as asked for. Times are medians of five requests of the UI.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from flows.cluster.client import Cluster, open_cluster
from flows.cluster.fan_out import fan_out, in_batches
from flows.cluster.settings import ClusterSettings
from tests.support.postgres import binary, postgres, unavailable_reason
from tests.support.prefect_ui import COMMAND
from tests.support.processes import free_port
from tests.support.waiting import wait_for

TRACKS_PER_BATCH = 64
MIB = 2**20
TABLES = (
    "flow_run", "flow_run_state", "task_run", "task_run_state", "log", "artifact", "events", "event_resources",
)  # fmt: skip
MUSIC = Path("tests/data/demo_music/fma_small")
FILES = 10
REQUESTS = {
    "last 50 runs": ("flow_runs/filter", {"limit": 50, "sort": "EXPECTED_START_TIME_DESC"}),
    "count of runs": ("flow_runs/count", {}),
    "runs by day": (
        "flow_runs/history",
        {
            "history_start": "2026-01-01T00:00:00Z",
            "history_end": "2026-02-01T00:00:00Z",
            "history_interval_seconds": 86400,
        },
    ),
    "artifacts, latest 50": ("artifacts/filter", {"limit": 50, "sort": "CREATED_DESC"}),
}  # fmt: skip


def return_at_once(batch: list[int]) -> int:
    """Stand in for a batch of tracks."""
    return len(batch)


def drive_scheduler(cluster: Cluster, batches: int) -> tuple[float, float, float]:
    """Return batches per second, ms of CPU for each, and the growth of this process in MiB."""
    process = psutil.Process()
    tracks = range(batches * TRACKS_PER_BATCH)
    memory, wall, cpu = process.memory_info().rss, time.monotonic(), time.process_time()
    done = sum(result for _, result in fan_out(cluster, return_at_once, in_batches(tracks, TRACKS_PER_BATCH)))
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    assert done == len(tracks)
    return batches / wall, 1_000 * cpu / batches, (process.memory_info().rss - memory) / MIB


def connected(address: str) -> ClusterSettings:
    return ClusterSettings(kind="scheduler", scheduler=address)


def show_scheduler(sizes: list[int], threads: list[int]) -> None:
    from distributed import LocalCluster

    print(f"{'threads':>8} {'batches':>9} {'batches/s':>10} {'CPU ms/batch':>13} {'memory, MiB':>12}")
    for count in threads:
        workers = LocalCluster(
            n_workers=2, threads_per_worker=max(1, count // 2), dashboard_address="127.0.0.1:0"
        )
        with workers as up, open_cluster(connected(up.scheduler_address)) as cluster:
            drive_scheduler(cluster, 200)
            for size in sizes:
                rate, cpu_ms, grown = drive_scheduler(cluster, size)
                print(f"{count:8} {size:9,} {rate:10,.0f} {cpu_ms:13.2f} {grown:12.0f}", flush=True)


@contextmanager
def prefect_server(database: str, folder: Path) -> Iterator[str]:
    """Start a server on a database; yield the URL of its API."""
    port = free_port()
    environment = os.environ | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_up(port), within_s=900, every_s=1)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait()


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


def record_build(api_url: str, folder: Path, commits: int) -> None:
    """Build spectrograms of a few songs, one a batch, in so many commits, recorded by the server."""
    music = folder / "music"
    music.mkdir(exist_ok=True)
    for song in sorted(MUSIC.rglob("*.mp3"))[:FILES]:
        shutil.copy(song, music)
    flags = ["--tracks-per-batch=1", f"--batches-per-commit={FILES // commits}", "--cluster.workers=1"]
    subprocess.run(
        [COMMAND, "build", str(music), f"--store={folder}/store-{commits}", *flags],
        env=os.environ | {"PREFECT_API_URL": api_url, "PREFECT_HOME": str(folder / "home")},
        check=True,
        stdout=subprocess.DEVNULL,
    )


class Database:
    """The tables of Prefect, by SQL."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def query(self, sql: str) -> list[str]:
        """Return the lines that psql prints."""
        address, _, port = self.url.rpartition("@")[2].partition("/")[0].partition(":")
        where = [f"--host={address}", f"--port={port}", "--username=prefect", "--dbname=prefect"]
        environment = os.environ | {"PGPASSWORD": "a password"}
        asked = subprocess.run(
            [binary("psql"), *where, "-qAtc", sql],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return asked.stdout.splitlines()

    def counts(self) -> dict[str, int]:
        return {table: int(self.query(f"select count(*) from {table}")[0]) for table in TABLES}

    def size_mib(self) -> float:
        return int(self.query("select pg_database_size('prefect')")[0]) / MIB

    def copy_run(self, first: int, last: int) -> None:
        """Copy all rows that are there as the runs number `first` to `last`, each a day earlier than the one before."""
        ids = " union ".join(f"select id from source_{table}" for table in TABLES)
        statements = ["set session_replication_role = replica", "begin"]
        for table in TABLES:
            self.query(f"create table if not exists source_{table} as table {table}")
        self.query(f"create table if not exists copied_ids as {ids}")
        for table in TABLES:
            columns = [
                line.split("|")
                for line in self.query(
                    "select column_name, data_type, is_generated from information_schema.columns "
                    f"where table_name = '{table}' and is_generated = 'NEVER'"
                )
            ]
            values = ", ".join(copied(name, kind) for name, kind, _ in columns)
            names = ", ".join(f'"{name}"' for name, _, _ in columns)
            statements.append(
                f"insert into {table} ({names}) select {values} from source_{table} s, "
                f"generate_series({first}, {last}) n"
            )
        self.query("; ".join([*statements, "commit", "analyze"]))


def copied(name: str, kind: str) -> str:
    """Return the SQL of a copied value: ids of the run's own rows become others, times are days earlier."""
    column = f's."{name}"'
    if kind == "uuid":
        is_own = f"{column} in (select id from copied_ids)"
        return f"case when {is_own} then md5({column}::text || n)::uuid else {column} end"
    if kind.startswith("timestamp"):
        return f"{column} - n * interval '1 day'"
    return column


def show_database(sizes: list[int]) -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    try:
        with postgres(folder / "postgres") as url, prefect_server(url, folder / "home") as api_url:
            database = Database(url, folder)
            empty = database.counts()
            record_build(api_url, folder, 1)
            time.sleep(5)  # events and logs are written in batches
            one = {table: count - empty[table] for table, count in database.counts().items()}
            print("rows of a build in 1 commit: ", json.dumps(one))
            before = database.counts()
            record_build(api_url, folder, 10)
            time.sleep(5)
            ten = {table: count - before[table] for table, count in database.counts().items()}
            print("rows of a build in 10 commits:", json.dumps(ten), flush=True)
            print(f"{'runs':>8} {'MiB':>8}" + "".join(f"{name:>22}" for name in REQUESTS))
            done = 2
            for size in sizes:
                copies = size // 2
                database.copy_run(done, copies)
                done = copies + 1
                times = [measure(api_url, *request) for request in REQUESTS.values()]
                print(
                    f"{size:8,} {database.size_mib():8,.0f}" + "".join(f"{ms:19,.0f} ms" for ms in times),
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(api_url: str, path: str, content: dict[str, object]) -> float:
    """Return the median milliseconds of five requests."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        httpx.post(f"{api_url}/{path}", json=content, timeout=300).raise_for_status()
        times.append(1_000 * (time.perf_counter() - begun))
    return statistics.median(times)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="*", default=[2_000, 20_000])
    parser.add_argument("--threads", type=int, nargs="*", default=[8, 64, 512])
    parser.add_argument("--runs", type=int, nargs="*", default=[10_000, 100_000])
    wanted = parser.parse_args()
    if wanted.batches and wanted.threads:
        show_scheduler(wanted.batches, wanted.threads)
    reason = unavailable_reason()
    if wanted.runs and reason:
        print(f"Prefect's database was not measured: {reason}")
    elif wanted.runs:
        show_database(wanted.runs)


if __name__ == "__main__":
    main()
