"""Owner, mode, times and attributes of a file that a draft replaces, and what keeps it from being replaced."""

import errno
import fcntl
import grp
import os
import pwd
import shutil
import stat
import struct
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Literal

from store.errors import BadInput

CAP_CHOWN, CAP_FOWNER = 0, 3
GET_FLAGS, IMMUTABLE, APPEND_ONLY = 0x80086601, 0x10, 0x20  # FS_IOC_GETFLAGS of linux/fs.h, on 64 bits
# These show all files as belonging to one user, and give no owner to a new file.
TYPES_WITHOUT_OWNERS = ("vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "cifs", "smb3", "9p", "drvfs")
NO_MODE_CODES = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

OwnerPolicy = Literal["keep", "change", "ignore"]
Owner = tuple[int, int]  # user and group


def write_obstacle(real: Path, status: os.stat_result, *, may_change_owner: bool) -> tuple[str, str] | None:
    """Return why a file could not be replaced, as a reason and its details; None if nothing is known to prevent it.

    Nothing is written to find out. A share may still refuse for reasons of its own.
    """
    folder = real.parent
    if _is_mounted_read_only(folder):
        return "read-only", f"{folder} is on a disk that is mounted read-only: mount it writable"
    if is_read_only(real, status):
        return "read-only", "the file is read-only: make it writable to have it tagged"
    for path in (real, folder):
        if _is_immutable(path):
            return "read-only", f"{path} is immutable or append-only: chattr -i -a {path}"
    if not _may(folder, os.W_OK | os.X_OK):
        return (
            "no-permission",
            f"{folder}: this user may not write into the folder, where the new file is made",
        )
    parent = folder.stat()
    mine = (0 if _has_capability(CAP_FOWNER) else os.geteuid(), os.geteuid())
    if parent.st_mode & stat.S_ISVTX and not {0, status.st_uid, parent.st_uid} & set(mine):
        return "no-permission", f"{folder} is sticky: only the owner of a file may replace it"
    if not may_change_owner and not _can_keep_owner(status, parent):
        return "other-owner", describe_lost_owner(owner_of(status))
    return None


def owner_of(status: os.stat_result) -> Owner:
    """Return user and group of a file."""
    return status.st_uid, status.st_gid


def describe_lost_owner(owner: Owner) -> str:
    """Return why a file is left to its owner, and what to do."""
    return (
        f"it belongs to {owner_name(owner)}, and this user may not give a new file to that owner: run as that owner "
        "or as root, or let such files change hands with --owner change"
    )


def owner_name(owner: Owner) -> str:
    """Return user:group, as numbers where they have no names."""
    user, group = map(str, owner)
    with suppress(KeyError):
        user = pwd.getpwuid(owner[0]).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(owner[1]).gr_name
    return f"{user}:{group}"


def is_read_only(real: Path, status: os.stat_result) -> bool:
    """Return whether a file is read-only, though a rename in its folder, or root, could replace it."""
    return not status.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not _may(real, os.W_OK)


def is_unchanged(before: os.stat_result, now: os.stat_result) -> bool:
    """Return whether a file is unchanged since `before`; of a file with several names, ctime is ignored.

    Another of its names that is replaced changes its ctime.
    """
    kept = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns)
    alike = kept == (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)
    return alike and (before.st_nlink > 1 or before.st_ctime_ns == now.st_ctime_ns)


def copy_metadata(
    real: Path,
    draft: Path,
    before: os.stat_result,
    *,
    owner: OwnerPolicy = "keep",
    former_owner: Owner | None = None,
    mtime_ns: int | None = None,
) -> None:
    """Copy owner, mode, extended attributes and times of the original to the draft; set `mtime_ns` if given.

    Raises: PermissionError if the owner cannot be kept, unless owner="change"; BadInput for an attribute or a mode
        that cannot.

    A `former_owner` gets the draft instead, if this user may give it to that one. With owner="ignore", for a copy
    elsewhere, nothing of these need be kept: its disk may not have them.
    """
    has_new_owner = False
    if former_owner is not None and _give_to(draft, former_owner):
        has_new_owner = former_owner != owner_of(before)
    elif owner != "ignore":
        has_new_owner = not _keep_owner(draft, before, may_change=owner == "change")
    try:
        shutil.copystat(real, draft)
    except OSError as why:  # from chmod, the last that it does: a disk without modes
        if why.errno not in NO_MODE_CODES:
            raise
    if owner != "ignore":
        lost = _attributes(real) - _attributes(draft)
        if lost:  # copystat skips what it may not set
            raise BadInput(f"it would lose its attribute {min(lost)}: this user may not set it")
        mode, wanted = (stat.S_IMODE(it.st_mode) for it in (draft.stat(), before))
        # A user who is not in the group of a file may not set the bits by which programs take its identity.
        if (mode ^ wanted) & ~(stat.S_ISUID | stat.S_ISGID if has_new_owner else 0):
            raise BadInput(f"it would lose its mode {wanted:o}: the disk does not keep it")
    # Reading has changed the time of access.
    os.utime(draft, ns=(before.st_atime_ns, before.st_mtime_ns if mtime_ns is None else mtime_ns))


def _give_to(draft: Path, owner: Owner) -> bool:
    """Give a file to another user and group; return whether it has both."""
    with suppress(PermissionError):
        if owner_of(draft.stat()) != owner:
            os.chown(draft, *owner)
        return True
    return False


def _keep_owner(draft: Path, before: os.stat_result, *, may_change: bool) -> bool:
    """Give the draft to the owner and group of the original, as far as possible; return whether it has both."""
    if _give_to(draft, owner_of(before)):
        return True
    if not may_change:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(draft))
    with suppress(PermissionError):
        os.chown(draft, -1, before.st_gid)
    return False


def _can_keep_owner(status: os.stat_result, folder: os.stat_result) -> bool:
    if _has_capability(CAP_CHOWN) or _type_of_disk(status.st_dev) in TYPES_WITHOUT_OWNERS:
        return True
    groups = {os.getegid(), *os.getgroups()}
    if folder.st_mode & stat.S_ISGID:
        groups.add(folder.st_gid)  # new files in the folder get its group
    return status.st_uid == os.geteuid() and status.st_gid in groups


def _has_capability(number: int) -> bool:
    return _user_has_capability(os.geteuid(), number)


@lru_cache
def _user_has_capability(user: int, number: int) -> bool:
    """Read once for each user that this process runs as: the kernel takes 0.1 ms."""
    with suppress(OSError), open("/proc/thread-self/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return user == 0


def _type_of_disk(device: int) -> str | None:
    """Return the type of a mounted file system by its device number; None where it is not known."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            fields = line.split()
            if fields[2] == number:
                return fields[fields.index("-") + 1]
    return None


def _is_mounted_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _is_immutable(path: Path) -> bool:
    """Return whether chattr made a file or folder immutable or append-only; False where disks have no such flags."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            flags = struct.unpack("l", fcntl.ioctl(handle, GET_FLAGS, struct.pack("l", 0)))[0]
        finally:
            os.close(handle)
        return bool(flags & (IMMUTABLE | APPEND_ONLY))
    return False


def _may(path: Path, access: int) -> bool:
    return os.access(path, access, effective_ids=os.access in os.supports_effective_ids)


def _attributes(path: Path) -> set[str]:
    """Return the names of the extended attributes that a user has set, and of the access control lists."""
    if not hasattr(os, "listxattr"):
        return set()
    try:
        return {name for name in os.listxattr(path) if name.startswith(("user.", "system.posix_acl_"))}
    except OSError as why:
        if why.errno == errno.ENOTSUP:
            return set()
        raise
