"""Disks that are not ext4: real ones mounted where the kernel allows it, and doubles of what cannot be mounted."""

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import pytest


@contextmanager
def share_semantics() -> Iterator[None]:
    """Behave as an SMB share or exFAT does, in this process.

    No rename over a file that is open here, no hard links, no sync of folders, no owners, no modes.
    """

    def replace_if_closed(source: Any, target: Any, **more: Any) -> None:
        with suppress(FileNotFoundError):
            wanted = os.stat(target)
            for name in os.listdir("/proc/self/fd"):
                try:
                    found = os.fstat(int(name))
                except OSError:
                    continue  # the handle of the listing itself
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source, None, target)
        return calls["replace"](source, target, **more)

    def sync_files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def keep_mode(path: Any, mode: int, **more: Any) -> None:
        if stat.S_IMODE(os.stat(path).st_mode) != mode:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    def refuse(path: Any, *args: Any, **more: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    calls = {"replace": os.replace}
    with mock.patch.multiple(
        os, replace=replace_if_closed, fsync=sync_files_only, chmod=keep_mode, chown=refuse, link=refuse
    ):
        yield


@contextmanager
def failing_once(name: str, code: int) -> Iterator[list[Any]]:
    """Have the first call of a function of `os` fail, such as one on an NFS file that another host replaced."""

    def fail_first(*args: Any, **more: Any) -> Any:
        failed.append(args)
        if len(failed) == 1:
            raise OSError(code, os.strerror(code), args[0])
        return call(*args, **more)

    call: Callable[..., Any] = getattr(os, name)
    failed: list[Any] = []
    with mock.patch.object(os, name, fail_first):
        yield failed


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on a folder; skip the test where the kernel or the rights of this user do not allow it."""
    folder.mkdir(exist_ok=True)
    try:
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
