"""Local copies of remote files: decoders seek, and a decoder that hangs must not hang on a network."""

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path, PurePosixPath

from preprocessing.errors import BadAudio
from preprocessing.prefetch import prefetch
from store.errors import DamagedFile
from store.fs.files import local_path, open_for_reading

COPY_BLOCK_BYTES = 1 << 20
MAX_PARALLEL_DOWNLOADS = 4


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Yield the path of a file on this machine's disk: its own, or that of a copy which is removed after the block.

    Raises: BadAudio if there is no such file, this user may not read it, or the archive it lies in holds
        it damaged; OSError if it cannot be read now.
    """
    path = local_path(url)
    if path is not None:
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=PurePosixPath(url.split("::")[0]).suffix) as copy:
        try:
            with open_for_reading(url) as remote:
                shutil.copyfileobj(remote, copy, COPY_BLOCK_BYTES)
        except FileNotFoundError:
            raise BadAudio("missing", "no such file") from None
        except PermissionError:
            raise BadAudio("no-permission", "this user may not read the file") from None
        except DamagedFile as why:
            raise BadAudio("checksum", str(why)) from None
        copy.flush()
        yield Path(copy.name)


def iter_local_copies(urls: Iterable[str]) -> Generator[Path | BadAudio, None, None]:
    """Yield a local path of each file, as `local_copy` does, or why it has none; fetch the next meanwhile."""
    with closing(prefetch(_open_copy, urls, release=lambda it: it[0].close())) as copies:
        for copy, path in copies:
            with copy:
                yield path


@contextmanager
def local_copies(urls: Sequence[str | None]) -> Iterator[list[Path | BadAudio | None]]:
    """Yield local paths of all files at once, as `iter_local_copies` does one by one; None for None."""
    with ExitStack() as all_copies:
        with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as threads:
            downloads = [None if url is None else threads.submit(_open_copy, url) for url in urls]
        for download in downloads:
            if download is not None and download.exception() is None:
                all_copies.enter_context(download.result()[0])
        yield [None if download is None else download.result()[1] for download in downloads]


def _open_copy(url: str) -> tuple[ExitStack, Path | BadAudio]:
    """Return the path of a local copy, and what the caller must close to remove it."""
    copy = ExitStack()
    try:
        return copy, copy.enter_context(local_copy(url))
    except BadAudio as why:
        return copy, why
