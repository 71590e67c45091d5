"""S3 objects that are changed: read with all they bear, and put back only if nobody else changed them."""

import filecmp
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fsspec import AbstractFileSystem
from fsspec.asyn import sync

from store.errors import BadInput, ObjectChanged
from store.fs.files import file_system, translate_server_errors
from store.fs.signatures import object_signature

MAX_PUT_BYTES = 5 << 30  # what one put may carry
BLOCK_BYTES = 1 << 20
PRESERVED_HEADERS = (  # what an object bears beside its bytes, by the names that S3 has for it in both directions
    "BucketKeyEnabled", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType",
    "Expires", "Metadata", "SSEKMSKeyId", "ServerSideEncryption", "StorageClass", "WebsiteRedirectLocation",
)  # fmt: skip
CREDENTIAL_ERROR_CODES = (
    "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "NotSignedUp", "RequestTimeTooSkewed",
    "SignatureDoesNotMatch", "TokenRefreshRequired",
)  # fmt: skip
CONFLICT_CODES = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


@dataclass(frozen=True)
class StoredObject:
    """What an object was when it was read: enough to put another content under the same headers."""

    url: str
    etag: str  # with its quotes
    version_id: str | None  # None where the bucket keeps no versions
    size_bytes: int
    headers: Mapping[str, Any]  # PRESERVED_HEADERS, and Tagging

    @property
    def signature(self) -> str:
        """The signature of the object, as listings report it."""
        return object_signature(self.size_bytes, self.etag)


def download_object(url: str, path: Path, *, version_id: str | None = None) -> StoredObject:
    """Read an object, or an older version of it, into a file, and tell what else it bears.

    Raises: FileNotFoundError, PermissionError; BadInput if it cannot be put back as it is; OSError.
    """
    fs, bucket, key = _place(url)
    named = {"Bucket": bucket, "Key": key, **({"VersionId": version_id} if version_id else {})}
    with translate_server_errors(url):
        told: Mapping[str, Any] = sync(fs.loop, _download, fs, url, path, named)
        headers = {name: told[name] for name in PRESERVED_HEADERS if told.get(name)}
        if told.get("TagCount"):
            tags = fs.call_s3("get_object_tagging", **named)["TagSet"]
            headers["Tagging"] = urlencode([(tag["Key"], tag["Value"]) for tag in tags])
    return StoredObject(url, told["ETag"], told.get("VersionId"), told["ContentLength"], headers)


def put_if_unchanged(url: str, path: Path, was: StoredObject) -> StoredObject:
    """Put the content of a file where `was` is, under its headers, in one step.

    Raises: ObjectChanged, FileNotFoundError if another writer changed or removed it; PermissionError;
        BadInput if one put cannot carry that much; OSError.
    """
    from botocore.exceptions import ClientError  # of the extra s3
    from s3fs.errors import translate_boto_error

    _refuse_too_large(url, path.stat().st_size)
    fs, bucket, key = _place(url)
    named = {"Bucket": bucket, "Key": key, "IfMatch": was.etag, **was.headers}
    with translate_server_errors(url):
        try:
            told: Mapping[str, Any] = sync(fs.loop, _upload, fs, path, named)
        except ClientError as error:
            if error.response["Error"].get("Code") not in CONFLICT_CODES:
                raise translate_boto_error(error) from error
            return _unless_changed(url, path)
    return replace(was, etag=told["ETag"], version_id=told.get("VersionId"), size_bytes=path.stat().st_size)


def has_version(url: str, version_id: str) -> bool:
    """Say whether a bucket still has a version of an object."""
    fs, bucket, key = _place(url)
    with translate_server_errors(url):
        try:
            fs.call_s3("head_object", Bucket=bucket, Key=key, VersionId=version_id)
        except FileNotFoundError:
            return False
    return True


def is_credentials_error(error: PermissionError) -> bool:
    """Tell credentials that expired or are wrong from one object that may not be read or written."""
    answer = getattr(error.__cause__, "response", None) or {}
    return answer.get("Error", {}).get("Code") in CREDENTIAL_ERROR_CODES


def _unless_changed(url: str, path: Path) -> StoredObject:
    """Look whether it is our own content that made the server refuse it.

    A client that retries by itself can be refused by the very put it just made.
    """
    with tempfile.NamedTemporaryFile() as copy:
        there = download_object(url, Path(copy.name))
        if not filecmp.cmp(copy.name, path, shallow=False):
            raise ObjectChanged(f"{url}: another writer changed the object meanwhile")
    return there


def _place(url: str) -> tuple[AbstractFileSystem, str, str]:
    fs, remote = file_system(url)
    bucket, key, _ = fs.split_path(remote)
    return fs, bucket, key


async def _download(
    fs: AbstractFileSystem, url: str, path: Path, named: Mapping[str, str]
) -> Mapping[str, Any]:
    """Have headers and bytes in one answer: of two answers one may be of another version."""
    told: Mapping[str, Any] = await fs._call_s3("get_object", **named)
    async with told["Body"] as body:
        _refuse_what_cannot_be_put(url, told)
        with path.open("wb") as file:
            async for block in body.iter_chunks(BLOCK_BYTES):
                file.write(block)
    return told


async def _upload(fs: AbstractFileSystem, path: Path, named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a file without s3fs's own way of trying again: it would find the file read to its end, and put nothing.

    The client beneath tries again by itself, and winds the file back.
    """
    await fs.set_session()
    client = await fs.get_s3(named["Bucket"])
    with path.open("rb") as body:
        told: Mapping[str, Any] = await client.put_object(
            Body=body, ContentLength=path.stat().st_size, **named
        )
    return told


def _refuse_what_cannot_be_put(url: str, told: Mapping[str, Any]) -> None:
    _refuse_too_large(url, told["ContentLength"])
    if told.get("MissingMeta"):
        raise BadInput(f"{url}: some of its metadata cannot be read, so it would be lost; tag a local copy")


def _refuse_too_large(url: str, size_bytes: int) -> None:
    if size_bytes > MAX_PUT_BYTES:
        raise BadInput(
            f"{url}: {size_bytes / 2**30:.1f} GiB; an object of over {MAX_PUT_BYTES >> 30} GiB cannot be put "
            "in one step; tag a local copy"
        )
