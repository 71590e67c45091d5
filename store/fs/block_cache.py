"""A bounded folder of blocks of bytes that were read from afar, shared by the processes of a host.

    NAME          a block: its length and CRC-32C, then its bytes
    NAME.claim    locked by whoever is fetching that block
    lock          locked while a block is added or blocks are removed; holds the bytes that all blocks take

A block appears whole, by a rename. Nothing is synced to disk: after a power failure its checksum decides.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import google_crc32c

from store.fs.disk_errors import naming
from store.fs.positioned_reads import OpenFile

HEADER = struct.Struct("<QI")  # length, CRC-32C
CLAIM, DRAFT = ".claim", ".draft"
KEPT_SHARE = 0.95  # of the limit, after blocks were removed: the folder is listed once for many blocks


class BlockCache:
    """Blocks of bytes by name; those that were opened longest ago are removed first."""

    def __init__(self, folder: str, size_bytes: int) -> None:
        """Make the folder. Raises: OSError if it cannot be written."""
        self.size_bytes = size_bytes
        self._folder = Path(folder).expanduser().absolute()
        self._checked: dict[str, int] = {}  # inodes
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            pass

    def open(self, name: str) -> OpenFile | None:
        """Open a block for reading after HEADER; None if it is not there. A damaged block is removed.

        Its bytes are compared with their checksum when this process opens it first.
        """
        path = self._folder / name
        with suppress(OSError):  # a disk that cannot be read is as good as an empty one: the block is fetched
            file = OpenFile(str(path))
            status = os.fstat(file.handle)
            if self._checked.get(name) == status.st_ino or _is_whole(file.handle, status.st_size):
                self._checked[name] = status.st_ino
                os.utime(file.handle)
                return file
            path.unlink(missing_ok=True)
        return None

    def put(self, name: str, content: bytes) -> None:
        """Keep a block, and remove others to make room. On a disk that fails or is full, do nothing."""
        size = HEADER.size + len(content)
        if size > KEPT_SHARE * self.size_bytes:
            return
        draft = self._folder / f"{name}.{uuid4().hex}{DRAFT}"
        try:
            with self._locked() as lock:
                if (self._folder / name).exists():
                    return
                used = _read_number(lock)
                if used is None or used + size > self.size_bytes:
                    used = self._remove_oldest(int(KEPT_SHARE * self.size_bytes) - size)
                os.pwrite(lock, b"%020d" % (used + size), 0)
                draft.write_bytes(HEADER.pack(len(content), google_crc32c.value(content)) + content)
                draft.rename(self._folder / name)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    @contextmanager
    def claiming(self, names: Iterable[str]) -> Iterator[list[str]]:
        """Claim blocks that are to be fetched; yield those that no other thread or process is fetching.

        Another may have fetched one just before it was claimed: look again whether it is there.
        """
        with ExitStack() as held:
            yield [name for name in names if self._claim(name, held, fcntl.LOCK_EX | fcntl.LOCK_NB)]

    def wait_for(self, name: str) -> None:
        """Wait until no other thread or process is fetching a block."""
        with ExitStack() as held:
            self._claim(name, held, fcntl.LOCK_EX)

    def _claim(self, name: str, held: ExitStack, how: int) -> bool:
        path = self._folder / f"{name}{CLAIM}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            held.callback(os.close, handle)  # ends the lock
            fcntl.flock(handle, how)
        except BlockingIOError:
            return False
        except OSError:  # a full disk, or one without locks: nobody else can claim it either
            return True
        # Whoever waits with the removed file open, and whoever makes another, find the block when they look again.
        held.callback(path.unlink, missing_ok=True)
        return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        path = self._folder / "lock"
        with naming(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield handle
            finally:
                os.close(handle)

    def _remove_oldest(self, allowed_bytes: int) -> int:
        """Remove the rest of killed processes, and blocks until `allowed_bytes` are left; return what is left."""
        found = []
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                status = entry.stat()
                if entry.name.endswith(DRAFT):  # of a killed process: a living one would hold the lock
                    os.unlink(entry.path)
                elif entry.name != "lock" and not entry.name.endswith(CLAIM):
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if used <= allowed_bytes:
                break
            Path(path).unlink(missing_ok=True)
            used -= size
        return used


def _is_whole(handle: int, size: int) -> bool:
    content = os.pread(handle, size, 0)
    if len(content) < HEADER.size:
        return False
    length, crc32c = HEADER.unpack_from(content)
    return bool(
        length == len(content) - HEADER.size and crc32c == google_crc32c.value(content[HEADER.size :])
    )


def _read_number(handle: int) -> int | None:
    text = os.pread(handle, 32, 0)
    return int(text) if text.isdigit() else None
