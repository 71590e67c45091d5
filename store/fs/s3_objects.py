"""S3 objects: downloaded with their headers and tags, and replaced only if no other writer changed them."""

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

MAX_PUT_BYTES = 5 << 30  # the limit of S3 for one put
BLOCK_BYTES = 1 << 20
PRESERVED_HEADERS = (  # of an object, by the names that S3 uses in requests and responses
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
    """An object as it was when downloaded: enough to put another content under the same headers."""

    url: str
    etag: str  # with quotes
    version_id: str | None  # None where the bucket keeps no versions
    size_bytes: int
    headers: Mapping[str, Any]  # PRESERVED_HEADERS, and Tagging

    @property
    def signature(self) -> str:
        """The signature of the object, as listings report it."""
        return object_signature(self.size_bytes, self.etag)


def download_object(url: str, path: Path, *, version_id: str | None = None) -> StoredObject:
    """Download an object, or an older version of it, into a file, and return its headers.

    Raises: FileNotFoundError, PermissionError; BadInput if it cannot be put back as it is; OSError.
    """
    fs, bucket, key = _bucket_and_key(url)
    named = {"Bucket": bucket, "Key": key, **({"VersionId": version_id} if version_id else {})}
    with translate_server_errors(url):
        response: Mapping[str, Any] = sync(fs.loop, _download, fs, url, path, named)
        headers = {name: response[name] for name in PRESERVED_HEADERS if response.get(name)}
        if response.get("TagCount"):
            tags = fs.call_s3("get_object_tagging", **named)["TagSet"]
            headers["Tagging"] = urlencode([(tag["Key"], tag["Value"]) for tag in tags])
    return StoredObject(url, response["ETag"], response.get("VersionId"), response["ContentLength"], headers)


def put_if_unchanged(url: str, path: Path, was: StoredObject) -> StoredObject:
    """Replace the object `was` by the content of a file, under the same headers, in one step.

    Raises: ObjectChanged, FileNotFoundError if another writer changed or removed it; PermissionError;
        BadInput if it is too large for one put; OSError.
    """
    from botocore.exceptions import ClientError  # of the extra s3
    from s3fs.errors import translate_boto_error

    _refuse_too_large(url, path.stat().st_size)
    fs, bucket, key = _bucket_and_key(url)
    named = {"Bucket": bucket, "Key": key, "IfMatch": was.etag, **was.headers}
    with translate_server_errors(url):
        try:
            response: Mapping[str, Any] = sync(fs.loop, _upload, fs, path, named)
        except ClientError as error:
            if error.response["Error"].get("Code") not in CONFLICT_CODES:
                raise translate_boto_error(error) from error
            return _confirm_own_put(url, path)
    return replace(
        was, etag=response["ETag"], version_id=response.get("VersionId"), size_bytes=path.stat().st_size
    )


def has_version(url: str, version_id: str) -> bool:
    """Return whether a bucket still has a version of an object."""
    fs, bucket, key = _bucket_and_key(url)
    with translate_server_errors(url):
        try:
            fs.call_s3("head_object", Bucket=bucket, Key=key, VersionId=version_id)
        except FileNotFoundError:
            return False
    return True


def is_credentials_error(error: PermissionError) -> bool:
    """Return whether the credentials are expired or wrong: the error then concerns more than one object."""
    response = getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in CREDENTIAL_ERROR_CODES


def _confirm_own_put(url: str, path: Path) -> StoredObject:
    """Return the object if it has the content of `path` already. Raises: ObjectChanged.

    A client that retries by itself can be refused because of the put it just made.
    """
    with tempfile.NamedTemporaryFile() as copy:
        there = download_object(url, Path(copy.name))
        if not filecmp.cmp(copy.name, path, shallow=False):
            raise ObjectChanged(f"{url}: another writer changed the object meanwhile")
    return there


def _bucket_and_key(url: str) -> tuple[AbstractFileSystem, str, str]:
    fs, remote = file_system(url)
    bucket, key, _ = fs.split_path(remote)
    return fs, bucket, key


async def _download(
    fs: AbstractFileSystem, url: str, path: Path, named: Mapping[str, str]
) -> Mapping[str, Any]:
    """Get headers and bytes in one response: of two responses one may be of another version."""
    response: Mapping[str, Any] = await fs._call_s3("get_object", **named)
    async with response["Body"] as body:
        _refuse_lossy(url, response)
        with path.open("wb") as file:
            async for block in body.iter_chunks(BLOCK_BYTES):
                file.write(block)
    return response


async def _upload(fs: AbstractFileSystem, path: Path, named: Mapping[str, Any]) -> Mapping[str, Any]:
    """Put a file without the retries of s3fs: they would find the file read to its end, and put nothing.

    The client below s3fs retries by itself, and rewinds the file.
    """
    await fs.set_session()
    client = await fs.get_s3(named["Bucket"])
    with path.open("rb") as body:
        response: Mapping[str, Any] = await client.put_object(
            Body=body, ContentLength=path.stat().st_size, **named
        )
    return response


def _refuse_lossy(url: str, response: Mapping[str, Any]) -> None:
    _refuse_too_large(url, response["ContentLength"])
    if response.get("MissingMeta"):
        raise BadInput(f"{url}: some of its metadata cannot be read, so it would be lost; tag a local copy")


def _refuse_too_large(url: str, size_bytes: int) -> None:
    if size_bytes > MAX_PUT_BYTES:
        raise BadInput(
            f"{url}: {size_bytes / 2**30:.1f} GiB; an object of over {MAX_PUT_BYTES >> 30} GiB cannot be put "
            "in one step; tag a local copy"
        )
