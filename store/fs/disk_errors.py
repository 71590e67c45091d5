"""Errors of disks and shares: which to try again, what a file system does not have, and what a person can do."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MAX_STALE_ATTEMPTS = 3
NOT_SUPPORTED_CODES = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
# The last two: vfat and exFAT, and shares whose server refuses links.
NO_HARD_LINK_CODES = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EMLINK)
REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "the quota of this user is used up: free some space, or have it raised",
    errno.EROFS: "that disk is mounted read-only: mount it writable, or name another folder",
    errno.EACCES: "give this user the permission, or name another folder",
    errno.EPERM: "give this user the permission, or name another folder",
    errno.EIO: "the disk or its connection fails: check it (dmesg shows what it reported)",
    errno.ESTALE: "the server replaced or removed it: mount the share again",
    errno.ENOTCONN: "the share is no longer connected: mount it again",
    errno.ETIMEDOUT: "the file server does not respond: check the connection",
    errno.EHOSTDOWN: "the file server does not respond: check the connection",
    errno.EHOSTUNREACH: "the file server cannot be reached: check the connection",
    errno.EMFILE: "this process has too many open files: raise the limit (ulimit -n)",
    errno.ENFILE: "this machine has too many open files: close other programs",
    errno.ENAMETOOLONG: "the name is too long for that disk: shorten it",
    errno.EFBIG: "the file is too large for that disk: name a folder on another one",
    errno.EBUSY: "another program holds it: close that program",
    errno.ETXTBSY: "another program holds it: close that program",
}


def describe_os_error(error: OSError) -> str:
    """Return one line: the path, what the system reports, and what to do."""
    named = [it for it in (error.filename, error.filename2) if isinstance(it, (str, bytes, os.PathLike))]
    paths = [printable(os.fsdecode(it)) for it in named]
    if error.errno is None:
        return f"{error}; correct that"
    where = f"{' -> '.join(paths)}: " if paths else ""
    remedy = REMEDIES.get(error.errno, "correct that")
    return f"{where}{error.strerror or os.strerror(error.errno)}; {remedy}"


def printable(name: str) -> str:
    """Return a name as a terminal can show it: control characters and odd bytes escaped."""
    if name.isprintable():
        return name
    return "".join(it if it.isprintable() else it.encode("unicode_escape").decode() for it in name)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add a path to an OSError that names none: those of write, fsync and close do not."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = os.fspath(path)
        raise


def retry_if_stale(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call again if a file server no longer knows the file behind a path: another host replaced it.

    Looking the path up once more usually finds the new file.
    """
    for attempts_left in reversed(range(MAX_STALE_ATTEMPTS)):
        try:
            return call(*args, **kwargs)
        except OSError as error:
            if error.errno != errno.ESTALE or not attempts_left:
                raise
    raise AssertionError("the last attempt returns or raises")
