"""A prefix of an S3 bucket: listed by the thousand, read an object a request, and verified."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.session import Session  # type: ignore[import-untyped]

from cxrmodel.data.files.s3_fetch import MD5, Fetcher
from cxrmodel.errors import ChecksumError, FileChangedError
from cxrmodel.patience import NUM_READS, patiently, status_of

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
MAX_CONNECTIONS = 256  # threads that read are fewer

NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
REFUSED = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"}
NOT_FOUND, CHANGED, EMPTY = 404, 412, 416

logger = logging.getLogger(__name__)


class S3Prefix:
    """What lies below `s3://bucket/prefix`; safe to use from threads, and after a fork.

    Endpoint, region and credentials come from AWS's own chain. A request that the store is too
    busy for, or that breaks off, is repeated with growing waits; a refusal never. Botocore lists,
    repeats and explains; whole objects are asked for through a `Fetcher` first.

    Args:
        url: `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._connections: dict[int, tuple[Any, Fetcher]] = {}
        self._connection()

    def __reduce__(self) -> tuple[type[S3Prefix], tuple[str]]:
        """Connect anew in another process."""
        return S3Prefix, (f"s3://{self.bucket}/{self.prefix}",)

    def _connection(self) -> tuple[Any, Fetcher]:
        """Return what this process reads with: a fork must not share its parent's connections."""
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = self._connections.setdefault(os.getpid(), _connect())
        return connection

    def objects(self) -> Iterator[tuple[str, int, str]]:
        """Yield name (relative to the prefix), size in bytes and ETag of every object, sorted."""
        more: dict[str, str] = {}
        while True:
            page = self._request("list_objects_v2", Prefix=self.prefix, **more)
            for found in page.get("Contents", ()):
                name = found["Key"].removeprefix(self.prefix)
                yield name, found["Size"], found["ETag"].strip('"')
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, name: str, limit: int | None = None, *, version: str = "") -> bytes:
        """Return an object's bytes, or the first `limit` of them, in one request if all goes well.

        Whole objects are verified against their MD5 where the ETag is one.

        Args:
            name: Relative to the prefix.
            limit: The most bytes to return.
            version: The ETag it must have, whole, as listed.

        Raises:
            FileNotFoundError: The object or the bucket is gone.
            FileChangedError: It has another ETag than `version`.
            ChecksumError: It came damaged `NUM_READS` times in a row.
            PermissionError: Access is refused.
            OSError: The store is out of reach.
        """
        key = f"{self.prefix}{name}"
        _, fetcher = self._connection()
        body = fetcher.fetch(key, version)
        if body is None:
            # A part cannot be verified.
            part = f"bytes=0-{max(limit, 1) - 1}" if limit is not None and not version else ""
            body = self._read_patiently(key, version, part)
        return body[:limit]

    def _read_patiently(self, key: str, version: str, part: str) -> bytes:
        asked = {"IfMatch": f'"{version}"'} if version else {}
        if part:
            asked["Range"] = part
        _, fetcher = self._connection()
        for _ in range(NUM_READS):
            body, md5 = self._request("get_object", Key=key, **asked)
            if not md5:
                return bytes(body)
            if hashlib.md5(body, usedforsecurity=False).hexdigest() == md5:
                fetcher.follow(key)
                return bytes(body)
            logger.warning("s3://%s/%s came damaged: reading it again", self.bucket, key)
        raise ChecksumError(
            f"s3://{self.bucket}/{key} came {NUM_READS} times with another MD5 than its ETag: "
            "it is damaged in the store, or on its way here."
        )

    def exists(self) -> bool:
        """Tell whether the bucket is there and holds anything below the prefix."""
        try:
            page = self._request("list_objects_v2", Prefix=self.prefix, MaxKeys=1)
        except FileNotFoundError:
            return False
        return bool(page["KeyCount"])

    def _request(self, operation: str, **arguments: Any) -> Any:
        action = f"s3:{'ListBucket' if operation == 'list_objects_v2' else 'GetObject'}"
        where = f"s3://{self.bucket}/{arguments.get('Key', '')}"

        def send() -> Any:
            client, _ = self._connection()
            reply = getattr(client, operation)(Bucket=self.bucket, **arguments)
            return _body(reply) if "Body" in reply else reply

        try:
            return patiently(f"{action} on {where}", send)
        except ClientError as error:
            if operation == "get_object" and status_of(error) == EMPTY:
                return b"", ""
            raise _explained(error, action, where) from error
        except NO_CREDENTIALS as error:
            raise PermissionError(f"{action} on {where}: {error}") from error


def _connect() -> tuple[Any, Fetcher]:
    # Retries are `patiently`'s: botocore's own do not cover the body, and stop after a count.
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=MAX_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    session = Session()
    # Nobody here reads a time of modification, and parsing them is most of what a listing costs.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    client = session.create_client("s3", config=config)
    return client, Fetcher(client, session)


def _body(reply: dict[str, Any]) -> tuple[bytes, str]:
    """Return the bytes of a reply, and their MD5 where its ETag is that."""
    with closing(reply["Body"]) as stream:  # as a context it is the bare, unchecked stream
        body = stream.read()
    etag = reply["ETag"].strip('"')
    # With a key of one's own the ETag looks like an MD5 and is not that of the content.
    keyed = "kms" in reply.get("ServerSideEncryption", "") or "SSECustomerAlgorithm" in reply
    is_md5 = MD5.fullmatch(etag) and not keyed and "ContentRange" not in reply
    return body, etag if is_md5 else ""


def _explained(error: ClientError, action: str, where: str) -> Exception:
    """Return what a refusal means, as an exception that says what was asked of which bucket."""
    code = error.response["Error"].get("Code", "")
    told = f"{code}: {error.response['Error'].get('Message') or 'no reason given'}"
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
