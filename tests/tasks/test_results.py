"""The results in Prefect's page, where its server is away."""

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from cxrmodel.data.ledger import Reason, ledger
from cxrmodel.storage.layout import EXCLUDED_FILE
from cxrmodel.storage.store import Store
from tasks.results import show_results
from tests.servers.prefect_server import free_port


class Unavailable(BaseHTTPRequestHandler):
    """Refuses whatever it is sent, as a proxy does before a server that is away."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(503)

    def do_GET(self) -> None:
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def unavailable():
    server = HTTPServer(("127.0.0.1", 0), Unavailable)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def finished(tmp_path):
    """The report of a run that left no image out, the ledger, and their store."""
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    with store.write("report", "0" * 16) as draft:
        metrics = {"classifier": {"per_class": {}}}
        (draft.directory / "metrics.json").write_text(json.dumps(metrics))
        (draft.directory / "report.html").write_text("report")
        report = draft.commit({"macro_auroc": 0.5}, {})
    with store.write("index", "0" * 16) as draft:
        ledger([], Reason.IMAGE_MISSING, []).to_parquet(draft.directory / EXCLUDED_FILE)
        index = draft.commit({}, {})
    return report, index, store


@pytest.mark.parametrize("problem", ["503", "nobody"])
def test_a_server_that_is_away_costs_a_finished_run_its_page_only(
    problem, unavailable, finished, caplog
):
    report, index, store = finished
    url = f"http://127.0.0.1:{unavailable if problem == '503' else free_port()}/api"
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        show_results.fn(report, report, [index], store)
    (warning,) = [entry.message for entry in caplog.records if entry.name == "tasks.results"]
    assert warning.startswith("The results are not all in Prefect's page: ")
    assert warning.endswith(f"They are in {store.uri(report, 'report.html')}")
