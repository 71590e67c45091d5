"""A proxy before a server that loses requests, or their responses (then what was asked for is done), or fails them."""

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def dropping_proxy(
    endpoint: str,
    *,
    lost: str,
    method: str,
    times: int,
    after: int = 0,
    then: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Yield the URL of a proxy that breaks the connection at `times` requests so made, after so many others.

    What is lost is the "request" itself, or its "response"; `then` is called before the connection breaks.
    """
    count = 0

    def fault_of(request: str) -> str | None:
        nonlocal count
        is_cut = request == method and after <= count < after + times
        count += request == method
        return lost if is_cut else None

    with _proxy(endpoint, fault_of, then=then) as url:
        yield url


@contextmanager
def flaky_proxy(
    endpoint: str, *, faults: Sequence[str], every: int, delay_s: float = 0.0
) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a proxy that fails each request number `every`, 2 `every`, ...; and the list of those.

    The faults, in turn, are "request" or "response" (lost), "slow" (the response comes after `delay_s`), or
    an HTTP status.
    """
    requests, failed = 0, []

    def fault_of(request: str) -> str | None:
        nonlocal requests
        requests += 1
        if requests % every:
            return None
        fault = faults[len(failed) % len(faults)]
        failed.append(f"{request} {fault}")
        return fault

    with _proxy(endpoint, fault_of, delay_s=delay_s) as url:
        yield url, failed


class Outage:
    """Whether a proxy responds to every request with a status of its own, and to how many it did."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.requests = self.refused = 0

    def fault_of(self, request: str) -> str | None:
        """Return the status that a request gets instead of its response; None for its response."""
        self.requests += 1
        self.refused += self.status is not None
        return None if self.status is None else str(self.status)


@contextmanager
def proxy_with_outages(endpoint: str) -> Iterator[tuple[str, Outage]]:
    """Yield the URL of a proxy, and the switch by which it fails every request."""
    outage = Outage()
    with _proxy(endpoint, outage.fault_of) as url:
        yield url, outage


@contextmanager
def _proxy(
    endpoint: str,
    fault_of: Callable[[str], str | None],
    *,
    then: Callable[[], None] = lambda: None,
    delay_s: float = 0.0,
) -> Iterator[str]:
    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = fault_of(self.command)
            self.close_connection = fault in ("request", "response")
            if fault == "request":
                then()
                return
            if fault is not None and fault.isdigit():
                self.send_response(int(fault))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server = http.client.HTTPConnection(urlsplit(endpoint).netloc)
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    server.putheader(name, value)
            server.endheaders(body)
            response = server.getresponse()
            content = response.read()
            server.close()
            if fault == "response":
                then()
                return
            if fault == "slow":
                time.sleep(delay_s)
            with suppress(BrokenPipeError, ConnectionResetError):  # a client that does not wait any longer
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = pass_on

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:  # else the thread outlives a test that fails
            server.shutdown()
            thread.join()
