"""Requests to a store are repeated while it is busy or out of reach; a refusal is final."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeVar

import aiohttp
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

PATIENCE_S = 90
MAX_WAIT_S = 8
NUM_READS = 3
"""How often a body with the wrong checksum is requested."""

BUSY = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests"}
SERVER_ERROR = 500
BROKEN = (
    HTTPClientError,
    BotoConnectionError,
    IncompleteReadError,
    ResponseParserError,
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")


def patiently(what: str, send: Callable[[], T]) -> T:
    """Repeat a request for `PATIENCE_S`, with random, growing waits between attempts.

    Args:
        what: The action and its place, for messages.
        send: Sends the request once; errors other than passing ones are not caught.

    Raises:
        ConnectionError: The store stayed busy or out of reach.
    """
    give_up = time.monotonic() + PATIENCE_S
    for attempt in count():
        try:
            return send()
        except (*BROKEN, ClientError, OSError) as error:
            if not _is_passing(error):
                raise
            wait = random.uniform(0, min(MAX_WAIT_S, 0.2 * 2**attempt))  # noqa: S311
            if time.monotonic() + wait > give_up:
                raise ConnectionError(f"{what} failed: {error}") from error
            level = logging.WARNING if attempt else logging.DEBUG
            logger.log(level, "%s failed, trying again: %s", what, error)
            time.sleep(wait)
    raise AssertionError("count() does not end")


def status_of(error: ClientError) -> int:
    """Return the HTTP status of a store's refusal."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, OSError) and isinstance(error.__cause__, ClientError):
        error = error.__cause__  # s3fs puts an OSError around it
    if isinstance(error, ClientError):
        return (
            status_of(error) >= SERVER_ERROR
            or error.response.get("Error", {}).get("Code", "") in BUSY
        )
    return isinstance(error, BROKEN)
