"""A Prefect server as this client finds it: up, of a version that fits, accepting our credentials."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError
from prefect.settings import PREFECT_API_URL, temporary_settings

from store.errors import BadInput, ServiceUnavailable, first_line

REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
UNREACHABLE = "Failed to reach API"  # how the message of Prefect's RuntimeError begins
VERSION = re.compile(r"(\d+)\.(\d+)")


def responds(api_url: str) -> bool:
    """Return whether a Prefect server responds, with the TLS and authentication settings of Prefect."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


@contextmanager
def naming_lost_server(api_url: str) -> Iterator[None]:
    """Raise ServiceUnavailable for what Prefect's client raises in the block when the server is gone or fails."""
    try:
        yield
    except (httpx.HTTPError, ConcurrencySlotAcquisitionError, RuntimeError) as why:
        if isinstance(why, RuntimeError) and not str(why).startswith(UNREACHABLE):
            raise
        raise ServiceUnavailable(
            f"{api_url}: the Prefect server does not respond any more ({first_line(why)}); look at its log and its "
            "database, and when it is up run the same command again to resume"
        ) from None


def check_server(api_url: str) -> str:
    """Return the version of a server.

    Raises: ServiceUnavailable if none responds; BadInput if it refuses our credentials, or is of a version that
        this client cannot use.
    """
    if not responds(api_url):
        raise ServiceUnavailable(
            f"{api_url}: no Prefect server responds there; start it, correct PREFECT_API_URL, "
            "or unset it to have a server started here"
        )
    try:
        with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
            response = client._client.get("/admin/version")
    except httpx.HTTPStatusError as why:
        response = why.response
    except RuntimeError as why:  # Prefect's own comparison of versions
        raise BadInput(f"{api_url}: {why}; install requirements.lock on both") from None
    return read_version(api_url, response.status_code, response.text)


def read_version(api_url: str, status: int, text: str) -> str:
    """Return the version in a server's response. Raises: BadInput if the server cannot be used by this client."""
    if status in REFUSED:
        raise BadInput(
            f"{api_url}: the Prefect server refuses our credentials (status {status}); set PREFECT_API_AUTH_STRING "
            "to the USER:PASSWORD that the server has as PREFECT_SERVER_API_AUTH_STRING"
        )
    version = text.strip().strip('"')
    if status != httpx.codes.OK or VERSION.match(version) is None:
        raise BadInput(
            f"{api_url}: responds, but not as a Prefect server (status {status}); correct PREFECT_API_URL"
        )
    server, client = _release(version), _release(prefect.__version__)
    if server[0] != client[0] or server < client:
        raise BadInput(
            f"{api_url}: the server runs Prefect {version}, this client {prefect.__version__}; a server must not be "
            "older than its clients: install requirements.lock on both"
        )
    return version


async def read_pools() -> dict[str, int]:
    """Return the work pools of the configured server, with the number of their workers that respond."""
    pools = {}
    async with get_client() as client:
        for pool in await client.read_work_pools():
            workers = await client.read_workers_for_work_pool(pool.name)
            pools[pool.name] = sum(it.status == WorkerStatus.ONLINE for it in workers)
    return pools


def _release(version: str) -> tuple[int, int]:
    found = VERSION.match(version)
    assert found is not None
    return int(found[1]), int(found[2])
