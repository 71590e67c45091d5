"""What a recorded command reports when the Prefect server is lost in the middle of its run."""

import httpx
import pytest
from prefect.concurrency._asyncio import ConcurrencySlotAcquisitionError

from flows.services.server_check import naming_lost_server
from store.errors import ServiceUnavailable

URL = "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("Connection refused"),
        ConcurrencySlotAcquisitionError("no slot"),
        RuntimeError(f"Failed to reach API at {URL}/"),
    ],
)
def test_a_lost_server_is_one_line_with_what_to_do(error):
    wanted = rf"{URL}: the Prefect server does not respond any more \(.*\); .* run the same command again to resume"
    with pytest.raises(ServiceUnavailable, match=wanted), naming_lost_server(URL):
        raise error


def test_another_error_of_a_flow_stays_what_it_is():
    with pytest.raises(RuntimeError, match="of the flow"), naming_lost_server(URL):
        raise RuntimeError("of the flow")
