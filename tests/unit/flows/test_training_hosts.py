import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.training_hosts import share_groups, usual_processes
from store.errors import BadInput


@given(groups=st.integers(1, 64), hosts=st.integers(1, 8), offered=st.integers(1, 16))
def test_processes_get_equal_parts_and_no_more_run_would(groups, hosts, offered):
    if groups % hosts:
        with pytest.raises(BadInput, match=f"a step of {groups} groups .* cannot be shared by {hosts} hosts"):
            share_groups(groups, hosts=hosts, offered=offered)
        return
    processes = share_groups(groups, hosts=hosts, offered=offered)
    assert processes <= offered
    assert groups % (hosts * processes) == 0
    assert all(groups % (hosts * more) for more in range(processes + 1, offered + 1))


def test_a_share_of_the_gpus_is_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert usual_processes() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert usual_processes() == 2, "no GPU: two processes"
