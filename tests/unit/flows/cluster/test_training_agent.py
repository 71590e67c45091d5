import socket

from flows.cluster.training_agent import (
    AgentConfig,
    default_process_count,
    find_port,
    parse_event,
    process_environment,
)


def test_a_share_of_the_gpus_is_respected(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert default_process_count() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert default_process_count() == 2, "no GPU: two processes"


def test_a_port_that_is_taken_is_not_given():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert find_port(port) is None
        assert find_port(0) not in (None, 0, port)
    assert find_port(port) == port


def test_what_is_no_event_is_to_be_logged():
    assert parse_event('{"event": "done"}') == {"event": "done"}
    for line in ("Traceback", "{half", '{"not": "ours"}', "[1]", ""):
        assert parse_event(line) == {"event": "log", "line": line}


def test_waiting_threads_give_their_core_away_unless_the_user_says_otherwise(monkeypatch):
    agent = AgentConfig("run", "folder", "127.0.0.1", "127.0.0.1:29500", True, 1, 2, 3)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert int(process_environment(agent)["GOMP_SPINCOUNT"]) < 300_000, "libgomp's own"
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert process_environment(agent)["GOMP_SPINCOUNT"] == "5"
