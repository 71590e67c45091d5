from training.fit.events import make_heartbeat


def test_a_heartbeat_is_emitted_once_in_an_interval(monkeypatch):
    events = []
    heartbeat = make_heartbeat(events.append)
    heartbeat()
    assert events == [], "the interval is not over"
    monkeypatch.setattr("training.fit.events.EVENT_INTERVAL_S", -1.0)
    heartbeat()
    heartbeat()
    assert events == [{"event": "heartbeat"}] * 2
