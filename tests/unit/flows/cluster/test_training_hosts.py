import dask
import pytest
from distributed import Client
from pydantic import ValidationError

from flows.cluster.dask_client import naming_lost_scheduler
from flows.cluster.settings import ClusterSettings, HostSettings
from flows.cluster.training_hosts import find_hosts
from store.errors import ServiceUnavailable
from tests.support.dask_cluster import scheduler


def test_more_hosts_than_may_be_used_cannot_be_needed():
    with pytest.raises(ValidationError, match="--min-hosts 3 is more than --max-hosts 2"):
        HostSettings(min_hosts=3, max_hosts=2)


def test_a_scheduler_that_is_gone_is_no_lost_host():
    settings = ClusterSettings(kind="scheduler", scheduler="tcp://127.0.0.1:8786")
    wanted = "the connection to the Dask scheduler was lost"
    with dask.config.set({"distributed.comm.timeouts.connect": "1 s"}):
        with scheduler() as url:
            client = Client(url)
            assert find_hosts(client) == []
        with pytest.raises(ServiceUnavailable, match=wanted), naming_lost_scheduler(settings):
            find_hosts(client)
        client.close()  # as it does itself once it gives up connecting again
        with pytest.raises(ServiceUnavailable, match=wanted), naming_lost_scheduler(settings):
            find_hosts(client)
