import pytest
from pydantic import ValidationError

from flows.cluster.settings import HostSettings


def test_more_hosts_than_may_be_used_cannot_be_needed():
    with pytest.raises(ValidationError, match="--min-hosts 3 is more than --max-hosts 2"):
        HostSettings(min_hosts=3, max_hosts=2)
