"""Metrics are served as Prometheus reads them; the dashboard names those that exist; nothing is counted unasked."""

import json
import pickle
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import prometheus_client
import pytest
from prometheus_client import Counter

from flows.reporting.metrics import METRICS, PREFIX, Metric, TimedBody, count, serving_metrics, set_gauge
from flows.reporting.observation import parse_address
from flows.security.ports import find_free_port
from store.errors import BadInput

DASHBOARD = Path("deploy/grafana/spectrogram-one.json")
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
CALLS = re.compile(r"(?:metrics\.|\b)(?:count|set_gauge|_series)\(\s*\"(\w+)\"")


def test_what_is_counted_is_served():
    port = find_free_port("127.0.0.1", 0)
    with serving_metrics("127.0.0.1", port):
        count("rejects", reason="of this test")
        count("rejects", 2, reason="of this test")
        set_gauge("training_loss", 0.5)
        assert TimedBody(len)("abc") == 3
        with pytest.raises(TypeError):
            TimedBody(len)(3)
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'spectrogram_one_rejects_total{reason="of this test"} 3.0' in page
    assert "spectrogram_one_training_loss 0.5" in page
    assert 'spectrogram_one_batch_seconds_count{body="len",result="done"} 1.0' in page
    assert 'spectrogram_one_batch_seconds_count{body="len",result="failed"} 1.0' in page
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_threads_may_count_for_the_first_time_at_once(monkeypatch):
    """Dask's workers of several threads do: a metric that is registered twice is refused."""

    def counter(*arguments):
        time.sleep(0.1)
        return Counter(*arguments)

    monkeypatch.setattr(prometheus_client, "Counter", counter)
    monkeypatch.setitem(METRICS, "of_this_test", Metric("counter", "Calls of a test"))
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count, ["of_this_test"] * 2))


def test_a_timed_body_travels_to_workers_under_its_own_name():
    body = pickle.loads(pickle.dumps(TimedBody(len)))
    assert (body("ab"), body.__name__) == (2, "len")


def test_nothing_is_imported_unless_metrics_are_asked_for():
    script = (
        "import sys; from flows.reporting.metrics import *; count('rejects', reason='x'); TimedBody(len)('');"
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_dashboard_shows_metrics_that_exist_and_all_of_them():
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(re.findall(rf"{PREFIX}\w+", " ".join(expressions)))
    served = {
        name: {f"{PREFIX}{name}{it}" for it in SUFFIXES[metric.kind]} for name, metric in METRICS.items()
    }
    assert shown <= set().union(*served.values())
    assert all(names & shown for names in served.values())
    for panel in dashboard["panels"]:
        labels = {
            it for target in panel["targets"] for it in re.findall(r"{{(\w+)}}", target["legendFormat"])
        }
        ours = [it for it in METRICS if PREFIX + it in panel["targets"][0]["expr"]]
        assert not ours or labels <= {label for it in ours for label in METRICS[it].labels}, panel["title"]


def test_the_code_counts_metrics_that_exist_and_all_of_them():
    source = "\n".join(path.read_text() for path in Path("flows").rglob("*.py"))
    assert set(CALLS.findall(source)) == set(METRICS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9200", ("127.0.0.1", 9200)),
        ("10.0.0.5:9200", ("10.0.0.5", 9200)),
        ("[::1]:9200", ("::1", 9200)),
    ],
)
def test_addresses(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "host:", "0", "65536", "on", "9200:host"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(BadInput, match="no port to serve metrics at"):
        parse_address(text)
