"""What `serve` costs: time until the UI and all forms are there, memory and idle CPU of all its processes.

    python -m tests.benchmarks.serve [--idle-s 60]

Memory is PSS: pages that processes share are counted once. On a busy machine the CPU seconds are what to compare.
"""

import argparse
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import psutil

from flows.security.ports import find_free_port
from tests.support.prefect_ui import COMMAND, FLOWS, clean_environment


def measure(home: Path, idle_s: float) -> None:
    """Start `serve` twice, with a new and with an existing database, and print what it took."""
    for database in ("new", "existing"):
        port = find_free_port("127.0.0.1", 0)
        started = time.perf_counter()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [COMMAND, "serve", f"--port={port}"], env=clean_environment(home), stdout=log, stderr=log
            )
        try:
            wait_until_usable(process, port, home / "log")
            usable_s = time.perf_counter() - started
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            cpu_s = total_cpu_s(family)
            print(f"{database} database: usable after {usable_s:.1f} s, {cpu_s:.1f} s of CPU")
            time.sleep(idle_s)
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            idle = total_cpu_s(family) - cpu_s
            for each in family:
                memory = each.memory_full_info()
                print(f"  {memory.pss / 2**20:6.0f} MiB  {' '.join(each.cmdline())[:80]}")
            pss = sum(each.memory_full_info().pss for each in family) / 2**20
            print(f"  {pss:6.0f} MiB in all; idle {idle_s:g} s: {100 * idle / idle_s:.1f} % of a core")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def wait_until_usable(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Wait until the UI's page and every deployment are there."""
    while True:
        assert process.poll() is None, log.read_text()
        try:
            page = httpx.get(f"http://127.0.0.1:{port}/")
            found = httpx.post(f"http://127.0.0.1:{port}/api/deployments/filter", json={})
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if page.is_success and found.is_success and set(FLOWS) <= {it["name"] for it in found.json()}:
            return
        time.sleep(0.1)


def total_cpu_s(family: list[psutil.Process]) -> float:
    """Return the CPU time of processes so far. Units: seconds."""
    return sum(sum(each.cpu_times()[:2]) for each in family)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-s", type=float, default=60.0)
    options = parser.parse_args()
    os.environ.pop("PREFECT_API_URL", None)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.idle_s)
