"""Runs, models and their aliases on a team's MLflow server, beside the store and never instead.

What is logged: the settings as parameters, the numbers of metrics.json with their intervals, the
report and the bundle as artifacts, and the bundle as a version of a registered model. The version
carries the bundle's digest, so that a run served from the cache is not logged twice, and so that an
alias of the store finds its version.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrmodel.config import TrackingConfig
from cxrmodel.data.files.unforeseen import failures
from cxrmodel.errors import TrackingError
from cxrmodel.inference.bundle import read_bundle
from cxrmodel.storage.layout import METRICS_FILE

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_S = 2.0
ENVIRONMENT = {  # of the client, unless the environment says otherwise
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seven would take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # of silence: an upload may take longer
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
MAX_PARAMETERS, MAX_METRICS = 100, 1000  # in one request
DIGEST_TAG = "digest"
BUNDLE_FOLDER = "bundle"
EXISTS = "RESOURCE_ALREADY_EXISTS"
FINISHED, FAILED = "FINISHED", "FAILED"


@dataclass(frozen=True)
class FinishedTraining:
    """What is logged of a training.

    Attributes:
        name: Of the run, for people.
        config: Its settings, by section.
        report: Folder of its report.
        bundle: Folder of its bundle.
        places: Where report and bundle are kept, by their names.
    """

    name: str
    config: Mapping[str, Any]
    report: Path
    bundle: Path
    places: Mapping[str, str]


def check_tracking(config: TrackingConfig) -> None:
    """Refuse a tracking server that this installation could not log to.

    Raises:
        ValueError: MLflow's client is not installed.
    """
    if config.mlflow_uri and find_spec("mlflow") is None:
        raise ValueError(
            "tracking.mlflow_uri needs MLflow's client: pip install 'cxrmodel[mlflow]', or leave "
            "the setting out."
        )


def log_training(config: TrackingConfig, training: FinishedTraining) -> str:
    """Log a training, and register its bundle as a version of the model.

    Args:
        config: Which server, and the names there.
        training: What to log.

    Returns:
        The version; that of an earlier call where the same bundle was logged before.

    Raises:
        TrackingError: The server does not answer, refuses, or its store of artifacts does.
    """
    digest = read_bundle(str(training.bundle)).digest
    with _client(config) as client:
        known = _version_of(client, config.name, digest)
        if known is not None:
            return known
        run = client.create_run(
            _experiment(client, config.name), tags=dict(training.places), run_name=training.name
        )
        try:
            _log_numbers(client, run.info.run_id, training)
            client.log_artifacts(run.info.run_id, str(training.report), "report")
            client.log_artifacts(run.info.run_id, str(training.bundle), BUNDLE_FOLDER)
        except BaseException:
            with suppress(*_failures()):  # the first error is the one to tell
                client.set_terminated(run.info.run_id, FAILED)
            raise
        client.set_terminated(run.info.run_id, FINISHED)
        _make_model(client, config.name)
        source = f"{run.info.artifact_uri}/{BUNDLE_FOLDER}"
        version = client.create_model_version(
            config.name, source, run.info.run_id, {DIGEST_TAG: digest}, await_creation_for=0
        )
        return str(version.version)


def log_alias(config: TrackingConfig, alias: str, digest: str) -> str:
    """Give an alias of the model to the version that holds a bundle.

    Args:
        config: Which server, and the name of the model there.
        alias: The alias.
        digest: Of the bundle.

    Returns:
        The version.

    Raises:
        TrackingError: The server does not answer or refuses, or no version holds the bundle.
    """
    with _client(config) as client:
        version = _version_of(client, config.name, digest)
        if version is None:
            raise TrackingError(
                f"no version of the model {config.name} at {config.mlflow_uri} holds this bundle: "
                "it was trained without tracking, or that failed. Run its training again with "
                "tracking.mlflow_uri, which costs the cache's time alone"
            )
        client.set_registered_model_alias(config.name, alias, version)
        return version


@contextmanager
def _client(config: TrackingConfig) -> Iterator[MlflowClient]:
    """Give a client of a server that answers, and turn what goes wrong there into one error."""
    uri = str(config.mlflow_uri)
    _refuse_silent(uri)
    with _environment():
        # Here: it takes a second, and is not needed where there is no tracking.
        from mlflow.tracking import MlflowClient  # noqa: PLC0415

        try:
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except _failures() as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise TrackingError(f"{uri} cannot be logged to ({text})") from error


def _failures() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]  # noqa: PLC0415
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    # A server may send its clients to a bucket, of a cloud whose package is not even here.
    return MlflowException, ParseError, Boto3Error, *failures()


def _refuse_silent(uri: str) -> None:
    """Raise where a server does not answer at once.

    In a thread: looking up a name may take longer than any time limit of the request.
    """
    answers: list[str] = []

    def ask() -> None:
        import requests  # noqa: PLC0415

        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE_S, allow_redirects=False)
            answers.append("")
        except requests.RequestException as error:
            answers.append(f" ({type(error).__name__})")

    probe = threading.Thread(target=ask, daemon=True)
    probe.start()
    probe.join(PROBE_S)
    if answers != [""]:
        why = answers[0] if answers else f" within {PROBE_S:g} s"
        raise TrackingError(f"{uri} does not answer{why}")


@contextmanager
def _environment() -> Iterator[None]:
    """Set what the client reads from the environment; what a user has set stays."""
    ours = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _version_of(client: MlflowClient, name: str, digest: str) -> str | None:
    wanted = f"name = '{name}' and tags.{DIGEST_TAG} = '{digest}'"
    found = client.search_model_versions(wanted, max_results=1)
    return str(found[0].version) if found else None


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if error.error_code != EXISTS or found is None:
            raise
        return str(found.experiment_id)  # another run was faster


def _make_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != EXISTS:
            raise


def _log_numbers(client: MlflowClient, run_id: str, training: FinishedTraining) -> None:
    from mlflow.entities import Metric, Param  # noqa: PLC0415

    metrics = json.loads((training.report / METRICS_FILE).read_text(encoding="utf-8"))
    now = int(time.time() * 1000)
    numbers = [Metric(name, value, now, 0) for name, value in numbers_of(metrics).items()]
    settings = [Param(name, value) for name, value in parameters_of(training.config).items()]
    for start in range(0, len(numbers), MAX_METRICS):
        client.log_batch(run_id, metrics=numbers[start : start + MAX_METRICS])
    for start in range(0, len(settings), MAX_PARAMETERS):
        client.log_batch(run_id, params=settings[start : start + MAX_PARAMETERS])


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of metrics.json under the names that a tracking server gets.

    The scores of the autoencoder, the classifier's macro averages, and its AUROC of each label as
    `auroc/<label>`; each with the ends of its 95 % interval as `_low` and `_high`. What is
    undefined is left out.

    Args:
        metrics: Content of metrics.json.
    """
    classifier = metrics["classifier"]
    found = {**_with_interval(metrics["vae"]), **_with_interval(classifier, "macro_")}
    for label, entry in classifier["per_class"].items():
        for name, value in _with_interval(entry, "auroc").items():
            found[f"{name.replace('auroc', 'auroc/' + _plain(label), 1)}"] = value
    return found


def _with_interval(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in scores.items():
        if not name.startswith(prefix) or isinstance(value, bool) or not _is_number(value):
            continue
        found[name] = float(value)
        for end, bound in zip(("low", "high"), scores["intervals"].get(name, ()), strict=False):
            found[f"{name}_{end}"] = float(bound)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _plain(label: str) -> str:
    """Return a label in letters that a metric's name may have."""
    return "".join(letter if letter.isalnum() or letter in "_-. " else "_" for letter in label)


def parameters_of(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return all settings by their dotted names."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found.update(parameters_of(value, f"{before}{name}."))
        else:
            found[f"{before}{name}"] = str(value)
    return found
