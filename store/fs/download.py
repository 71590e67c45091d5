"""Downloads of large published files: resumed by range of bytes, verified by checksum.

What has arrived lies in NAME.part. NAME appears when all of it has the published SHA-1, and beside it
NAME.sha1, as `sha1sum` writes it: with it the file is not hashed again.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from store.errors import BadInput, ServiceUnavailable
from store.fs.files import hash_file, make_folder, sync_to_disk, write_atomic

TIMEOUT_S = 60.0  # without a byte
MAX_FAILURES = 5  # in a row, without a byte in between
MAX_PAUSE_S = 30.0


def remote_size(url: str) -> int:
    """Return the size of a file on an HTTP server, in bytes.

    Raises: BadInput if the server has no such file, or does not state its size; ServiceUnavailable if
        it does not respond.
    """
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_S, follow_redirects=True) as response:
            _check_status(response, url)
            size = response.headers.get("Content-Length")
    except httpx.HTTPError as why:
        raise ServiceUnavailable(f"{url}: {_reason(why)}; check the network, or name a --mirror") from None
    if size is None:
        raise BadInput(f"{url}: the server states no Content-Length; name another --mirror")
    return int(size)


def is_verified(path: Path, sha1: str) -> bool:
    """Return whether a file is here and was found to have this SHA-1 since it was last changed."""
    proof = _proof(path)
    return (
        path.is_file()
        and proof.is_file()
        and proof.stat().st_mtime_ns >= path.stat().st_mtime_ns
        and proof.read_text().split()[:1] == [sha1]
    )


def arrived_bytes(path: Path) -> int:
    """Return how much of a file is here, whole or in part."""
    return next((each.stat().st_size for each in (path, _part(path)) if each.is_file()), 0)


def download(
    url: str, path: Path, *, sha1: str, advance: Callable[[int], None], pause_s: float = 1.0
) -> None:
    """Download a file, or go on with it, until it is here with the SHA-1 that its publisher states.

    `advance` is called with the number of bytes that arrived. After a failure it is tried again, first
    after `pause_s`, then after twice as long.

    Raises: BadInput if the server has no such file, or the checksum is wrong: then the file is kept
        under another name; ServiceUnavailable if nothing arrives any more; OSError if it cannot be written.
    """
    if is_verified(path, sha1):
        return
    make_folder(path.parent)
    part = _part(path)
    if path.is_file():  # from another program, which may not have finished
        path.replace(part)
    failures = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _fetch_rest(url, part, advance)
            break
        except httpx.HTTPError as why:
            now = part.stat().st_size if part.is_file() else 0
            failures = 0 if now > before else failures + 1
            if failures >= MAX_FAILURES:
                raise ServiceUnavailable(
                    f"{url}: {_reason(why)}; {now:,} bytes are kept in {part}; run the same command again to resume"
                ) from None
            time.sleep(min(pause_s * 2**failures, MAX_PAUSE_S))
    _verify(url, part, path, sha1)


def _fetch_rest(url: str, part: Path, advance: Callable[[int], None]) -> None:
    """Append to a part what it lacks. Raises: httpx.HTTPError if the connection ends before that."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is no more: the checksum decides
        _check_status(response, url)
        resumed = re.match(rf"bytes {have}-", response.headers.get("Content-Range", ""))
        mode = "ab" if response.status_code == httpx.codes.PARTIAL_CONTENT and resumed else "wb"
        try:
            with part.open(mode) as file:
                for block in response.iter_raw():
                    file.write(block)
                    advance(len(block))
            sync_to_disk(part)
        except OSError as why:
            raise OSError(why.errno, why.strerror, str(part)) from None


def _verify(url: str, part: Path, path: Path, sha1: str) -> None:
    found = hash_file(part, "sha1").hex()
    if found != sha1:
        kept = _free_name(path)
        part.rename(kept)
        raise BadInput(
            f"{url}: its SHA-1 is {found}, its publisher states {sha1}; kept as {kept}, nothing is built from it; "
            "run the same command again to download it whole"
        )
    part.rename(path)
    write_atomic(str(_proof(path)), f"{sha1}  {path.name}\n".encode())


def _check_status(response: httpx.Response, url: str) -> None:
    """Raise BadInput if trying again will not help; httpx.HTTPError if it may."""
    status = response.status_code
    if response.is_success:
        return
    if response.is_client_error and status not in (
        httpx.codes.REQUEST_TIMEOUT,
        httpx.codes.TOO_MANY_REQUESTS,
    ):
        raise BadInput(f"{url}: the server responds {status} {response.reason_phrase}; check --mirror")
    raise httpx.HTTPError(f"the server responds {status} {response.reason_phrase}")


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


def _free_name(path: Path) -> Path:
    names = (
        path.with_name(f"{path.name}.wrong-checksum{suffix}") for suffix in ("", *map(str, range(2, 100)))
    )
    return next(name for name in names if not name.exists())


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _proof(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha1")
