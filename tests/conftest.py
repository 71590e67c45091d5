"""What all tests share: a Prefect server, an S3 double and a web server on loopback; no process outlives them."""

import os

# Several test processes share the cores; read when numpy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import http.server
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
from hypothesis import HealthCheck, settings
from moto.server import ThreadedMotoServer

from tests.support.audio_folders import as_nobody, open_folder  # noqa: F401 (fixtures)
from tests.support.faulty_proxy import dropping_proxy
from tests.support.leftovers import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401 (hooks)
from tests.support.prefect_ui import Served, serving
from tests.support.processes import free_port, is_listening
from tests.support.scheduling import pytest_xdist_make_scheduler  # noqa: F401 (hook)

# Nothing is on the clock: a loaded machine is not a defect. What is red once is red again: `make test` draws the same
# examples in every run, and `make soak` looks for new ones.
settings.register_profile(
    "suite",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    database=None,
)
settings.register_profile("soak", settings.get_profile("suite"), derandomize=False, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve on a free port, once for all tests of Prefect; in the end Ctrl-C leaves nothing behind."""
    port = free_port()
    with serving(tmp_path_factory.mktemp("served"), port) as served:
        yield served
    assert served.process.returncode == 0, served.log.read_text()
    assert "Traceback" not in served.log.read_text().rpartition("Pausing all deployments")[2]
    assert not is_listening(port), "the Prefect server outlived `serve`"


@pytest.fixture(scope="session")
def need() -> Callable[[object, str], None]:
    """Return `need(found, reason)`, for what pip does not bring: without it a test is skipped, in CI it fails."""

    def need(found: object, reason: str) -> None:
        if not found:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)

    return need


@pytest.fixture(scope="session")
def s3_endpoint():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def s3_url(s3_endpoint, monkeypatch):
    """Make a bucket of its own for one test."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def drop_s3_puts(s3_endpoint, monkeypatch) -> Iterator[Callable[[str, int], None]]:
    """Return `drop_s3_puts(lost, times)`: so many puts, or their responses, are lost on their way from then on."""
    s3 = fsspec.get_filesystem_class("s3")
    with ExitStack() as proxies:

        def cut(lost: str, times: int) -> None:
            proxy = dropping_proxy(s3_endpoint, lost=lost, method="PUT", times=times)
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxies.enter_context(proxy))
            s3.clear_instance_cache()

        yield cut
    s3.clear_instance_cache()


class _FolderServer(http.server.SimpleHTTPRequestHandler):
    """Serve a folder with index pages, as python's http.server does, and ranges of .zip files.

    /status/N answers N, /cut-short breaks off.
    """

    def log_message(self, *args: object) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with suppress(ConnectionError):  # a client that has read enough hangs up
            super().copyfile(source, outputfile)

    def do_GET(self) -> None:
        if self.path.startswith("/status/"):
            return self.send_error(int(self.path.removeprefix("/status/")))
        if self.path == "/cut-short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 500)
            return None
        asked = self.headers.get("Range")
        if asked is None or not self.path.endswith(".zip"):
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(len(content[first : last + 1])))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first : last + 1])
        return None


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    """Serve tmp_path/served by HTTP."""
    (tmp_path / "served").mkdir()
    handler = partial(_FolderServer, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
