"""Folders and buckets: whether they can be reached and written, their space, speed and clock."""

import os
import shutil
import statistics
import time
from pathlib import Path
from uuid import uuid4

from flows.diagnosis.findings import Finding, ok, problem, warning
from store.errors import SpectrogramOneError
from store.fs.disk_errors import describe_os_error
from store.fs.files import change_time, join, local_path, put_if_absent, read_bytes, remove

MIN_FREE_GIB, ENOUGH_FREE_GIB = 1.0, 10.0
FSYNC_ROUNDS = 9
SLOW_FSYNC_MS, VERY_SLOW_FSYNC_MS = 30.0, 300.0
MAX_CLOCK_DIFFERENCE_S = 10.0
PROBE = b"written by `spectrogram-one doctor` and removed again"


def check_place(subject: str, url: str) -> list[Finding]:
    """Write, read and remove a small file in a folder or bucket; compare its time with this machine's clock."""
    probe = join(url, f".doctor-{uuid4().hex}")
    try:
        path = local_path(url)
        if path is not None and not path.exists():
            return [_check_missing(subject, path)]
        put_if_absent(probe, PROBE)
        written = time.time()
        try:
            intact, changed = read_bytes(probe) == PROBE, change_time(probe)
        finally:
            remove(probe)
    except OSError as why:
        return [problem(subject, f"{url} cannot be written", describe_os_error(why))]
    except (SpectrogramOneError, ImportError, ValueError) as why:
        return [problem(subject, f"{url} cannot be reached", " ".join(str(why).split()))]
    if not intact:
        return [problem(subject, f"{url} returned other bytes than were written", "check the disk or share")]
    return [ok(subject, f"{url} can be read and written"), *check_clock(url, changed - written)]


def check_clock(url: str, ahead_s: float) -> list[Finding]:
    """Judge by how many seconds the clock of a file server is ahead of this machine's."""
    if abs(ahead_s) <= MAX_CLOCK_DIFFERENCE_S:
        return []
    return [
        warning(
            "clock",
            f"{url} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine",
            "have both set by NTP: sweeps and certificates compare times",
        )
    ]


def check_space(subject: str, folder: Path, free_bytes: int | None = None) -> list[Finding]:
    """Judge the free space of the disk of a folder."""
    existing = nearest_existing(folder)
    free_gib = (shutil.disk_usage(existing).free if free_bytes is None else free_bytes) / 2**30
    found = f"{free_gib:.1f} GiB free on the disk of {folder}"
    if free_gib < MIN_FREE_GIB:
        return [problem(subject, found, "free some: `spectrogram-one store sweep`, `spectrogram-one prune`")]
    if free_gib < ENOUGH_FREE_GIB:
        return [warning(subject, found, "a store takes about 0.7 MB for each track of 30 s")]
    return [ok(subject, found)]


def check_fsync(subject: str, folder: Path, median_ms: float | None = None) -> list[Finding]:
    """Judge how long a disk takes to make a small file durable: each shard, snapshot and tagged file waits for it."""
    try:
        median_ms = measure_fsync_ms(nearest_existing(folder)) if median_ms is None else median_ms
    except OSError as why:
        return [problem(subject, "fsync fails", describe_os_error(why))]
    found = f"{median_ms:.1f} ms for a small file in {folder}"
    if median_ms > VERY_SLOW_FSYNC_MS:
        return [problem(subject, found, "use another disk: each tagged file waits for it several times")]
    if median_ms > SLOW_FSYNC_MS:
        return [warning(subject, found, "tagging in place will be slow here; a local SSD takes a few ms")]
    return [ok(subject, found)]


def measure_fsync_ms(folder: Path) -> float:
    """Return the median time of writing a page and syncing it. Units: milliseconds."""
    path, times = folder / f".doctor-{uuid4().hex}", []
    try:
        with path.open("wb") as file:
            for _ in range(FSYNC_ROUNDS):
                started = time.perf_counter()
                file.write(bytes(4_096))
                file.flush()
                os.fsync(file.fileno())
                times.append(time.perf_counter() - started)
    finally:
        path.unlink(missing_ok=True)
    return 1_000 * statistics.median(times)


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(it for it in (path.absolute(), *path.absolute().parents) if it.exists())


def _check_missing(subject: str, path: Path) -> Finding:
    above = nearest_existing(path)
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok(subject, f"{path} does not exist yet, and can be created")
    return problem(
        subject,
        f"{path} does not exist, and this user may not create it in {above}",
        "create it for this user, or name another",
    )
