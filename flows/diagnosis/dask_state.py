"""A Dask cluster that is up: it responds, and its workers run this code."""

from flows.cluster.dask_client import open_client
from flows.cluster.settings import ClusterSettings
from flows.diagnosis.findings import Finding, ok, problem
from store.errors import SpectrogramOneError

CONNECT_TIMEOUT_S = 10.0


def check_scheduler(address: str, certificates: str) -> list[Finding]:
    """Connect to a scheduler as a flow would: with its certificates, comparing the code of its workers."""
    settings = ClusterSettings(
        kind="scheduler", scheduler=address, certificates=certificates, connect_timeout_s=CONNECT_TIMEOUT_S
    )
    try:
        with open_client(settings) as client:
            threads = client.nthreads()
    except SpectrogramOneError as why:
        return [problem("dask", str(why), "")]
    return [
        ok("dask", f"{address}: {len(threads)} workers with {sum(threads.values())} threads run this code")
    ]
