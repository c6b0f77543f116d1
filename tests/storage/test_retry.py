import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from cxrmodel.storage import retry
from cxrmodel.storage.retry import patiently


def refusal(status, code):
    reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(reply, "GetObject")


class Store:
    """Fails with the given errors, one a request, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def ask(self):
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def wrapped(error):
    outer = OSError(121, "as s3fs tells it")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    "error",
    [
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(400, "RequestTimeout"),
        wrapped(refusal(502, "BadGateway")),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
        ConnectionResetError("reset"),
        TimeoutError("no answer"),
    ],
)
def test_what_passes_is_repeated(error):
    store = Store(error, error)
    assert patiently("Reading x", store.ask) == "answer"


@pytest.mark.parametrize(
    "error",
    [
        refusal(403, "AccessDenied"),
        refusal(404, "NoSuchKey"),
        wrapped(refusal(400, "InvalidArgument")),
        PermissionError("refused"),
        FileNotFoundError("gone"),
        OSError(28, "No space left on device"),
    ],
)
def test_what_is_final_is_not(error):
    store = Store(error, error)
    with pytest.raises(type(error)):
        patiently("Reading x", store.ask)
    assert len(store.errors) == 1


def test_patience_ends_with_an_error_that_says_what_was_done(monkeypatch):
    monkeypatch.setattr(retry, "PATIENCE_S", 0.05)
    store = Store(*[TimeoutError("no answer")] * 1000)
    with pytest.raises(ConnectionError, match="Reading s3://xrays/x failed: no answer"):
        patiently("Reading s3://xrays/x", store.ask)
