"""What MLflow's client needs of a tracking server, in memory, with a record of all requests."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MAX_METRICS = 1000  # in one request, as MLflow has it
API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


@dataclass
class Tracker:
    """What the server was told.

    Attributes:
        requests: Method and path of each, in their order.
        headers: Those of the last request.
        refused: Beginnings of paths that are answered with 403.
        status: Last status of each run, by its id.
    """

    uri: str = ""
    requests: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    status: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    models: set[str] = field(default_factory=set)
    versions: list[dict[str, Any]] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)

    def answer(self, call: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a call of the REST API."""
        answer = getattr(self, f"_{call.replace('/', '_').replace('-', '_')}", None)
        return answer(body) if answer else (404, {"error_code": "ENDPOINT_NOT_FOUND"})

    def _experiments_get_by_name(self, body):
        name = body["experiment_name"]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": name}
        found = {"experiment_id": self.experiments[name], "name": name}
        return 200, {"experiment": {**found, "lifecycle_stage": "active"}}

    def _experiments_create(self, body):
        self.experiments[body["name"]] = number = str(len(self.experiments) + 1)
        return 200, {"experiment_id": number}

    def _runs_create(self, body):
        run_id = uuid.uuid4().hex  # the client keeps what it knows of a run by its id
        self.runs[run_id] = {**body, "id": run_id}
        return 200, {"run": self._run(run_id)}

    def _runs_get(self, body):
        return 200, {"run": self._run(body["run_id"])}

    def _run(self, run_id):
        info = {"run_id": run_id, "run_uuid": run_id, "experiment_id": "1", "status": "RUNNING"}
        return {"info": {**info, "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts"}}

    def _runs_update(self, body):
        self.status[body["run_id"]] = body["status"]
        return 200, {"run_info": self._run(body["run_id"])["info"]}

    def _runs_log_batch(self, body):
        if len(body.get("metrics", [])) > MAX_METRICS:
            return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "too many metrics"}
        self.metrics |= {one["key"]: one["value"] for one in body.get("metrics", [])}
        self.params |= {one["key"]: one["value"] for one in body.get("params", [])}
        return 200, {}

    def _registered_models_create(self, body):
        if body["name"] in self.models:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": body["name"]}
        self.models.add(body["name"])
        return 200, {"registered_model": {"name": body["name"]}}

    def _registered_models_get(self, body):
        return 200, {"registered_model": {"name": body["name"]}}

    def _model_versions_search(self, body):
        wanted = [
            one
            for one in self.versions
            if f"name = '{one['name']}'" in body["filter"]
            and all(
                f"tags.{tag['key']} = '{tag['value']}'" in body["filter"] for tag in one["tags"]
            )
        ]
        return 200, {"model_versions": wanted}

    def _model_versions_create(self, body):
        version = {**body, "version": str(len(self.versions) + 1), "status": "READY"}
        self.versions.append(version)
        return 200, {"model_version": version}

    def _registered_models_alias(self, body):
        self.aliases[body["alias"]] = body["version"]
        return 200, {}


@contextmanager
def open_tracker() -> Iterator[Tracker]:
    """Serve on loopback while the context lasts."""
    tracker = Tracker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            tracker.requests.append(f"{self.command} {url.path}")
            tracker.headers = dict(self.headers)
            if any(url.path.startswith(start) for start in tracker.refused):
                self._send(403, {"error_code": "PERMISSION_DENIED", "message": "refused"})
            elif url.path.startswith(ARTIFACTS):
                name = url.path.removeprefix(ARTIFACTS).partition("/artifacts/")[2]
                tracker.artifacts[name] = content
                self._send(200, {})
            elif url.path.startswith(API):
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                body = json.loads(content) if content else query
                self._send(*tracker.answer(url.path.removeprefix(API), body))
            else:
                self._send(200 if url.path == "/health" else 404, {})

        do_GET = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815

        def _send(self, code: int, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tracker.uri = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield tracker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
