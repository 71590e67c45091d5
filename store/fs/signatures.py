"""The signature of a file: another one means another content.

local file    SIZE-MTIME_NS    a chmod, a new owner or an undo of our own writes keeps it
S3 object     SIZE-ETAG
"""

import os

from store.errors import BadInput
from store.fs.files import file_system, local_path, translate_server_errors


def read_signature(url: str) -> str:
    """Return the signature that a file has at this moment.

    Raises: FileNotFoundError, PermissionError; BadInput for what is neither a local path nor an S3 URL.
    """
    path = local_path(url)
    if path is not None:
        return signature_from_stat(path.stat())
    require_taggable_url(url)
    fs, remote = file_system(url)
    bucket, key, _ = fs.split_path(remote)
    with translate_server_errors(url):
        head = fs.call_s3("head_object", Bucket=bucket, Key=key)
    return object_signature(head["ContentLength"], head["ETag"])


def signature_from_stat(status: os.stat_result) -> str:
    """Return the signature of a local file. The time of a status change is no part of it: content stays then."""
    return f"{status.st_size}-{status.st_mtime_ns}"


def object_signature(size_bytes: int | None, etag: str) -> str:
    """Return the signature of an object, from its size and its ETag with or without quotes."""
    return f"{size_bytes}-" + etag.strip('"')


def size_of_signature(signature: str) -> int:
    """Return the size in bytes of a file that has a signature."""
    return int(signature.partition("-")[0])


def require_taggable_url(url: str) -> None:
    """Raise BadInput for a URL that is neither local nor S3."""
    if local_path(url) is None and not url.startswith("s3://"):
        raise BadInput(
            f"{url}: tags are written to local files and S3 objects; name a file or folder, or an s3:// URL"
        )
