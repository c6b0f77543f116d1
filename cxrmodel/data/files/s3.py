"""A prefix of an S3 bucket: listed by the thousand, read one object per request, and verified."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    NoCredentialsError,
    PartialCredentialsError,
)

from cxrmodel.data.files.listing import Oddities
from cxrmodel.errors import ChecksumError, DataError, FileChangedError
from cxrmodel.storage.retry import NUM_READS, patiently, status_of

PROTOCOLS = ("s3://", "s3a://")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
MAX_CONNECTIONS = 256  # threads that read are fewer

MD5 = re.compile(r"[0-9a-f]{32}")
MODIFIED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"}
NOT_FOUND, CHANGED, EMPTY = 404, 412, 416

logger = logging.getLogger(__name__)


class S3Prefix:
    """What lies below `s3://bucket/prefix`; safe to use from threads, and after a fork.

    Endpoint, region and credentials come from AWS's own chain. A request that the store is too
    busy for, or that breaks off, is repeated with growing waits; a refusal is not.

    Args:
        url: `s3://bucket/prefix`.

    Attributes:
        oddities: Always empty.

    Raises:
        DataError: The URL names no bucket.
    """

    def __init__(self, url: str) -> None:
        self.bucket, _, prefix = url.partition("://")[2].partition("/")
        if not self.bucket:
            raise DataError(f"{url} names no bucket: write s3://BUCKET/PREFIX.")
        self.prefix = f"{prefix.strip('/')}/".lstrip("/")
        self.oddities = Oddities()  # a bucket has none
        self._clients: dict[int, Any] = {}
        self._client()

    def __reduce__(self) -> tuple[type[S3Prefix], tuple[str]]:
        """Connect anew in another process."""
        return S3Prefix, (f"s3://{self.bucket}/{self.prefix}",)

    def _client(self) -> Any:
        """Return this process's client: a fork must not share its parent's connections."""
        client = self._clients.get(os.getpid())
        if client is None:
            client = self._clients.setdefault(os.getpid(), _connect())
        return client

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield name (relative to the prefix), size in bytes and version of every object, sorted.

        The version is the ETag, or the time of modification where the store sends no ETag.

        Raises:
            DataError: The store's listing lacks what every listing of S3 has.
        """
        num_without_etag = 0
        for found in self._listed():
            etag = found.get("ETag", "").strip('"')
            num_without_etag += not etag
            try:
                version = etag or found["LastModified"].isoformat()
                yield found["Key"].removeprefix(self.prefix), found["Size"], version
            except KeyError as error:
                raise DataError(self._lacks(f"{error} of {found.get('Key')!r}")) from error
        if num_without_etag:
            logger.warning(
                "The listing of s3://%s/%s gives no ETag for %s objects: whether one was replaced "
                "is told by its time of modification, and a changed byte may not be noticed.",
                self.bucket, self.prefix, f"{num_without_etag:,}",
            )  # fmt: skip

    def _listed(self) -> Iterator[dict[str, Any]]:
        operation, more = "list_objects_v2", {"ContinuationToken": ""}
        page = self._request(operation, Prefix=self.prefix)
        while True:
            found = page.get("Contents", [])
            yield from found
            if not page.get("IsTruncated"):
                return
            previous = more
            if "NextContinuationToken" in page:
                more = {"ContinuationToken": page["NextContinuationToken"]}
            else:  # the store only knows listings of version 1, which continue after a key
                operation = "list_objects"
                more = {
                    "Marker": page.get("NextMarker") or max((f["Key"] for f in found), default="")
                }
            if more == previous or not any(more.values()):
                raise DataError(self._lacks("a NextContinuationToken or NextMarker that leads on"))
            page = self._request(operation, Prefix=self.prefix, **more)

    def _lacks(self, what: str) -> str:
        return (
            f"Cannot list s3://{self.bucket}/{self.prefix}: the store's answer lacks {what}, which "
            "every listing of S3 has. Copy the data set to a folder, or to a store that lists "
            "as S3 does."
        )

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return an object's bytes, or the first `limit` of them, normally in one request.

        Whole objects are verified against their MD5 where the ETag is one.

        Args:
            name: Relative to the prefix.
            limit: The most bytes to return.
            version: The version it must have, as listed.

        Raises:
            FileNotFoundError: The object or the bucket is gone.
            FileChangedError: It has another version.
            ChecksumError: It came damaged `NUM_READS` times in a row.
            PermissionError: Access is refused.
            OSError: The store is out of reach.
        """
        key, asked = f"{self.prefix}{name}", _condition(version)
        if limit is not None and not version:
            asked["Range"] = f"bytes=0-{max(limit, 1) - 1}"  # a part cannot be verified
        kind = "MD5 than its ETag"
        for _ in range(NUM_READS):
            try:
                reply = self._request("get_object", Key=key, **asked)
            except FlexibleChecksumError:  # the checksum that the store keeps beside the ETag
                kind = "checksum than the store's"
            else:
                body, md5 = bytes(reply["Body"]), _md5_of(reply, version)
                if not md5 or hashlib.md5(body, usedforsecurity=False).hexdigest() == md5:
                    return body[:limit]
            logger.warning("s3://%s/%s came damaged: reading it again", self.bucket, key)
        raise ChecksumError(
            f"s3://{self.bucket}/{key} came {NUM_READS} times with another {kind}: "
            "it is damaged in the store, or on its way here."
        )

    def exists(self) -> bool:
        """Tell whether the bucket is there and holds anything below the prefix."""
        try:
            page = self._request("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return bool(page.get("Contents"))

    def _request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Return the reply; `Body` is read, since a connection may break off there too."""
        action = f"s3:{'GetObject' if operation == 'get_object' else 'ListBucket'}"
        where = f"s3://{self.bucket}/{arguments.get('Key', '')}"

        def send() -> dict[str, Any]:
            reply: dict[str, Any] = getattr(self._client(), operation)(
                Bucket=self.bucket, **arguments
            )
            if "Body" in reply:
                with closing(reply["Body"]) as stream:  # its own context manager skips the checksum
                    reply["Body"] = stream.read()
            return reply

        try:
            return patiently(f"{action} on {where}", send)
        except ClientError as error:
            if operation == "get_object" and status_of(error) == EMPTY:
                return {"Body": b"", "ETag": ""}
            raise _explained(error, action, where) from error
        except NO_CREDENTIALS as error:
            raise PermissionError(f"{action} on {where}: {error}") from error


def _connect() -> Any:
    # `patiently` repeats requests: boto3 itself does not cover the body, and stops after a count.
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=MAX_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    return boto3.session.Session().client("s3", config=config)


def _condition(version: str) -> dict[str, Any]:
    """Return what makes the store refuse an object of another version."""
    if MODIFIED.fullmatch(version):  # the header has no fractions of a second
        latest = datetime.fromisoformat(version) + timedelta(microseconds=999_999)
        return {"IfUnmodifiedSince": latest.astimezone(UTC)}
    return {"IfMatch": f'"{version}"'} if version else {}


def _md5_of(reply: dict[str, Any], version: str) -> str:
    """Return the MD5 of a whole object where its ETag, in the reply or as listed, is that."""
    etag = reply.get("ETag", version).strip('"')
    # With a customer's key the ETag looks like an MD5 but is not that of the content.
    keyed = "kms" in reply.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in reply
    is_md5 = MD5.fullmatch(etag) and not keyed and "ContentRange" not in reply
    return etag if is_md5 else ""


def _explained(error: ClientError, action: str, where: str) -> Exception:
    """Return a refusal as an exception that says what was asked of which bucket."""
    reply = error.response.get("Error", {})
    code = reply.get("Code", "")
    told = f"{code}: {reply.get('Message') or 'no reason given'}"
    status = status_of(error)
    if status in (401, 403) or code in REFUSED:
        return PermissionError(f"{action} on {where} was refused ({told})")
    if status == NOT_FOUND:
        what = "the bucket" if code == "NoSuchBucket" else "the object"
        return FileNotFoundError(f"{what} of {where} does not exist")
    if status == CHANGED:
        return FileChangedError(
            f"{where} was replaced after it was listed. Run again to index the data set as it is."
        )
    return OSError(f"{action} on {where} failed ({told})")
