"""Downloads from a server of our own that breaks off, ignores ranges, lies, moves and refuses."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from store.errors import BadInput, ServiceUnavailable
from store.fs.download import arrived_bytes, download, is_verified, remote_size

CONTENT = bytes(range(256)) * 40_000  # ten blocks
SHA1 = hashlib.sha1(CONTENT).hexdigest()


@dataclass
class Server:
    """A server of one file, and its faults."""

    url: str
    cut_after: list[int] = field(default_factory=list)  # bytes, response by response
    statuses: list[int] = field(default_factory=list)
    ignores_ranges: bool = False
    content: bytes = CONTENT
    first_bytes: list[int] = field(default_factory=list)  # of each response


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/moved.zip":
                self.send_response(302)
                self.send_header("Location", "/file.zip")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path != "/file.zip":
                return self.send_error(404)
            if state.statuses:
                return self.send_error(state.statuses.pop(0))
            wanted = self.headers.get("Range")
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            if state.ignores_ranges:
                start = 0
            if start >= len(state.content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                last = len(state.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(state.content)}")
            self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            state.first_bytes.append(start)
            until = state.cut_after.pop(0) if state.cut_after else len(state.content)
            try:
                self.wfile.write(state.content[start : start + until])
            except ConnectionError:  # `remote_size` reads the headers only
                state.first_bytes.pop()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state = Server(f"http://127.0.0.1:{listening.server_port}/file.zip")
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


def fetch(server: Server, path: Path, name: str = "file.zip") -> int:
    """Download; return how many bytes arrived."""
    arrived = []
    download(server.url.replace("file.zip", name), path, sha1=SHA1, advance=arrived.append, pause_s=0.001)
    return sum(arrived)


def test_a_file_is_here_once_it_has_the_published_checksum(server, tmp_path):
    path = tmp_path / "data/file.zip"
    assert remote_size(server.url) == len(CONTENT)
    assert fetch(server, path) == len(CONTENT)
    assert path.read_bytes() == CONTENT
    assert is_verified(path, SHA1)
    assert (tmp_path / "data/file.zip.sha1").read_text() == f"{SHA1}  file.zip\n"
    assert sorted(each.name for each in path.parent.iterdir()) == ["file.zip", "file.zip.sha1"]
    assert fetch(server, path) == 0, "it is not downloaded twice"


def test_a_line_that_is_cut_costs_no_byte_twice(server, tmp_path):
    server.cut_after = [3_000_000, 1, 2_500_000]
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT)
    assert server.first_bytes == [0, 3_000_000, 3_000_001, 5_500_001]
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_download_goes_on_in_the_next_run(server, tmp_path):
    server.cut_after = [2_000_000, *[0] * 10]
    with pytest.raises(
        ServiceUnavailable, match=r"2,000,000 bytes are kept in .*file.zip.part; run the same"
    ):
        fetch(server, tmp_path / "file.zip")
    assert arrived_bytes(tmp_path / "file.zip") == 2_000_000
    server.cut_after, server.first_bytes = [], []
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT) - 2_000_000
    assert server.first_bytes == [2_000_000]


def test_a_server_that_ignores_ranges_sends_all_of_it_again(server, tmp_path):
    server.cut_after, server.ignores_ranges = [3_000_000], True
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT) + 3_000_000
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_a_wrong_byte_is_found_and_the_file_kept_under_another_name(server, tmp_path):
    server.content = CONTENT[:5_000] + b"!" + CONTENT[5_001:]
    for kept in ("file.zip.wrong-checksum", "file.zip.wrong-checksum2"):
        with pytest.raises(
            BadInput, match=rf"its SHA-1 is \w+, its publisher states {SHA1}; kept as .*/{kept},"
        ):
            fetch(server, tmp_path / "file.zip")
        assert (tmp_path / kept).read_bytes() == server.content
    assert not (tmp_path / "file.zip").exists()
    server.content = CONTENT
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT)


@pytest.mark.parametrize("have", [3_000_000, len(CONTENT)])
def test_what_another_program_downloaded_is_completed(have, server, tmp_path):
    (tmp_path / "file.zip").write_bytes(CONTENT[:have])
    assert not is_verified(tmp_path / "file.zip", SHA1)
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT) - have
    assert is_verified(tmp_path / "file.zip", SHA1)


def test_a_file_that_changed_since_it_was_verified_is_verified_again(server, tmp_path):
    fetch(server, tmp_path / "file.zip")
    (tmp_path / "file.zip").write_bytes(CONTENT + b"more")
    assert not is_verified(tmp_path / "file.zip", SHA1)


def test_a_redirect_is_followed(server, tmp_path):
    assert fetch(server, tmp_path / "file.zip", "moved.zip") == len(CONTENT)


def test_a_server_that_fails_for_a_while_is_tried_again(server, tmp_path):
    server.statuses = [503, 500, 429]
    assert fetch(server, tmp_path / "file.zip") == len(CONTENT)


@pytest.mark.parametrize("call", [remote_size, lambda url: download(url, Path("x"), sha1="", advance=int)])
def test_a_file_that_the_server_has_not_is_one_line(call, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"gone\.zip: the server responds 404 Not Found; check --mirror"):
        call(server.url.replace("file.zip", "gone.zip"))


def test_no_server_at_all_is_one_line():
    with pytest.raises(ServiceUnavailable, match="check the network, or name a --mirror"):
        remote_size("http://127.0.0.1:9/file.zip")
