"""Files from afar onto this machine's disk: decoders seek, and a decoder that hangs must not hang on a network."""

import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath

from preprocessing.errors import BadAudio
from store.errors import DamagedFile
from store.fs.files import local_path, open_for_reading

COPY_BLOCK_BYTES = 1 << 20
MAX_PARALLEL_DOWNLOADS = 4


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Give the path of a file: its own if it lies here, else that of a copy which lives as long as the block.

    Raises: BadAudio if there is no such file, this user may not read it, or the archive it lies in holds
        it damaged; OSError if it cannot be read now.
    """
    path = local_path(url)
    if path is not None:
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=PurePosixPath(url.split("::")[0]).suffix) as copy:
        try:
            with open_for_reading(url) as far:
                shutil.copyfileobj(far, copy, COPY_BLOCK_BYTES)
        except FileNotFoundError:
            raise BadAudio("missing", "no such file") from None
        except PermissionError:
            raise BadAudio("no-permission", "this user may not read the file") from None
        except DamagedFile as why:
            raise BadAudio("checksum", str(why)) from None
        copy.flush()
        yield Path(copy.name)


def iter_local_copies(urls: Iterable[str]) -> Generator[Path | BadAudio, None, None]:
    """Give one file after the other as `local_copy` does, fetching the next while the caller is at this one."""
    with ThreadPoolExecutor(1) as ahead:
        waiting: Future[tuple[ExitStack, Path | BadAudio]] | None = None
        try:
            for url in chain(urls, [None]):
                current, waiting = waiting, None if url is None else ahead.submit(_hold, url)
                if current is not None:
                    held, path = current.result()
                    with held:
                        yield path
        finally:
            if waiting is not None and waiting.exception() is None:
                waiting.result()[0].close()


@contextmanager
def local_copies(urls: Sequence[str | None]) -> Iterator[list[Path | BadAudio | None]]:
    """Give what `iter_local_copies` gives of all files at once, for as long as the block lasts; None for None."""
    with ExitStack() as all_held:
        with ThreadPoolExecutor(MAX_PARALLEL_DOWNLOADS) as ahead:
            coming = [None if url is None else ahead.submit(_hold, url) for url in urls]
        for each in coming:
            if each is not None and each.exception() is None:
                all_held.enter_context(each.result()[0])
        yield [None if each is None else each.result()[1] for each in coming]


def _hold(url: str) -> tuple[ExitStack, Path | BadAudio]:
    """Open a copy and leave it to the caller to close it."""
    held = ExitStack()
    try:
        return held, held.enter_context(local_copy(url))
    except BadAudio as why:
        return held, why
