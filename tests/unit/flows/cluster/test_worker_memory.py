"""Memory of Dask workers: an array that is made again and again is not mapped and cleared each time."""

import os
import platform
import resource

import pytest

from flows.cluster.client import open_cluster
from flows.cluster.settings import ClusterSettings

ARRAY_BYTES, ROUNDS = 8 << 20, 200


def page_faults_of_arrays() -> tuple[float, dict[str, str]]:
    """Return the page faults for each array of 8 MiB, and what the worker's processes inherit."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(ROUNDS):
        b"x" * ARRAY_BYTES
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    inherited = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return faults / ROUNDS, inherited


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_workers_reuse_the_memory_of_their_arrays():
    pages = ARRAY_BYTES / os.sysconf("SC_PAGESIZE")
    with open_cluster(ClusterSettings(workers=1)) as cluster:
        faults, inherited = cluster.client.submit(page_faults_of_arrays).result(timeout=120)
    assert faults < pages / 10, "one fault for each page without it"
    assert inherited["MALLOC_MMAP_THRESHOLD_"] == str(32 << 20)
    assert inherited["MALLOC_TRIM_THRESHOLD_"] == str(64 << 20)
