"""A proxy before a server that loses requests, or their answers: then what was asked for is done, unheard of."""

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Give the URL of a proxy that breaks the connection at `times` requests so made, after so many others.

    What is lost is the "request" itself, or its "response"; `then` is called before the connection breaks.
    """
    place = 0

    class Proxy(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            nonlocal place
            if self.headers.get("Expect"):
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_cut = self.command == method and after <= place < after + times
            place += self.command == method
            self.close_connection = is_cut
            if is_cut and lost == "request":
                then()
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
            if is_cut:
                then()
                return
            self.send_response(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = pass_on

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
