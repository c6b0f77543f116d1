"""Whole objects of S3 through obstore, which takes a fraction of botocore's CPU."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import S3Credential

MD5 = re.compile(r"[0-9a-f]{32}")
SIGNED_FOR = re.compile(r"AWS4-HMAC-SHA256 Credential=.+/\d{8}/([^/]+)/s3/aws4_request,")
CREDENTIALS_TTL = timedelta(minutes=1)
MAX_REQUEST_S = 300  # botocore limits each wait for bytes alone
IMPORTED_BY = os.getpid()
FAILURES = (BaseError, OSError, ValueError)

logger = logging.getLogger(__name__)


class Fetcher:
    """Fetches objects of one bucket as its client did, and leaves to the client what fails.

    It has no settings, patience or error messages of its own. The address and the region are those
    of the client's last read, the credentials its session's, the time-outs its own. After a failure
    the client reads one object right before another is fetched, and twice as many each time that
    fetching fails again: what cannot be fetched here costs a few requests, not one an object.

    Args:
        client: botocore's, for S3.
        session: That made it.
    """

    def __init__(self, client: Any, session: Any) -> None:
        self._config = client.meta.config
        self._session = session
        self._last = threading.local()
        self._store: S3Store | None = None
        self._num_right, self._pause = 0, 1
        client.meta.events.register("before-send.s3.GetObject", self._remember)

    def fetch(self, key: str, md5: str) -> bytes | None:
        """Return the object that has this MD5 as its ETag, verified, or None for any reason."""
        store = self._store
        if store is None or not MD5.fullmatch(md5):
            return None
        try:
            reply = obstore.get(store, key, options={"if_match": f'"{md5}"'})
            body = bytes(reply.bytes())
        except FAILURES as error:
            self._leave(store, key, str(error))
            return None
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != md5:
            self._leave(store, key, "it has another MD5 than its ETag")
            return None
        self._pause = 1
        return body

    def follow(self, key: str) -> None:
        """Take note that the client has, on this thread, just read an object with the right MD5."""
        self._num_right += 1
        if self._store is not None or self._num_right < self._pause or _is_forked():
            return
        try:
            self._store = self._store_like_last(key)
        except FAILURES as error:
            self._leave(None, key, str(error))

    def _leave(self, store: S3Store | None, key: str, why: str) -> None:
        if self._store is not store:
            return  # another thread has: many fail at once where the server is away
        self._store, self._num_right, self._pause = None, 0, 2 * self._pause
        level = logging.INFO if self._pause > 2 else logging.DEBUG  # noqa: PLR2004 - not the first
        reason = why.partition("\n")[0]  # what follows is for obstore's own developers
        logger.log(level, "%s is left to botocore, as the next %s: %s", key, self._pause, reason)

    def _remember(self, request: Any, **_: Any) -> None:
        self._last.request = request

    def _store_like_last(self, key: str) -> S3Store | None:
        request = self._last.request
        signed = SIGNED_FOR.match(_text(request.headers.get("Authorization", "")))
        of_bucket = request.url.removesuffix("/" + quote(key, safe="/~"))
        if signed is None or of_bucket == request.url:
            return None  # of a kind that obstore has not, as of an access point in many regions
        return S3Store(
            # The bucket is in the URL already, wherever botocore has put it. What is given here
            # goes before variables of the environment that obstore would take notice of.
            config={
                "bucket": "in-url",
                "endpoint": of_bucket,
                "aws_endpoint_url_s3": of_bucket,
                "virtual_hosted_style_request": True,
                "region": signed[1],
                "skip_signature": False,
            },
            client_options={
                "allow_http": urlsplit(of_bucket).scheme == "http",
                "connect_timeout": timedelta(seconds=self._config.connect_timeout),
                "read_timeout": timedelta(seconds=self._config.read_timeout),
                "timeout": timedelta(seconds=MAX_REQUEST_S),
            },
            retry_config={"max_retries": 0},
            credential_provider=self._credentials,
        )

    def _credentials(self) -> S3Credential:
        current = self._session.get_credentials().get_frozen_credentials()
        return {
            "access_key_id": current.access_key,
            "secret_access_key": current.secret_key,
            "token": current.token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_TTL,  # botocore knows when to refresh
        }


def _is_forked() -> bool:
    """Tell whether this is a fork of the process that imported this.

    There obstore waits for ever, and where the parent has used it, may crash the parent: they share
    what tells its threads, which only the parent has, that bytes have come.
    """
    return os.getpid() != IMPORTED_BY


def _text(header: str | bytes) -> str:
    return header.decode() if isinstance(header, bytes) else header
