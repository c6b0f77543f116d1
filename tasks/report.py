"""Stage `report`: numbers, pictures and the page of one run."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from cxrmodel.config import PipelineConfig, RuntimeConfig
from cxrmodel.report.write import RunInputs, RunRecord, write_report
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.speed import SPEED
from tasks.engine.pixels import PixelSource
from tasks.engine.provenance import package_versions
from tasks.engine.stage import stage, stage_run


@stage("report")
def report_run(
    config: PipelineConfig,
    stages: dict[str, Artifact],
    pixels: PixelSource,
    store: Store,
    runtime: RuntimeConfig,
) -> Artifact:
    """Evaluate the run and write `report.html`, `metrics.json` and the figures."""
    with stage_run(store) as run:
        summary = write_report(
            config.report,
            RunInputs(**{name: store.directory(artifact) for name, artifact in stages.items()}),
            _record(config, stages),
            pixels.open(store, runtime, run.report),
            run.directory,
            report=run.report,
        )
        return run.commit(summary)


def _record(config: PipelineConfig, stages: dict[str, Artifact]) -> RunRecord:
    data = (stages["index"].fingerprint, stages["images"].fingerprint)
    return RunRecord(
        config=config.model_dump(exclude={"preset", "store", "runtime"}),
        provenance=_provenance(config),
        timings_s={name: artifact.seconds for name, artifact in stages.items()},
        data_fingerprint=hashlib.sha256("".join(data).encode()).hexdigest(),
        dataset=stages["index"].summary["dataset"],
        training_speed={name: stages["vae"].summary[name] for name in SPEED},
    )


def _provenance(config: PipelineConfig) -> dict[str, Any]:
    return {
        "code": _revision(),
        "config": config.fingerprint(),
        "packages": package_versions(),
    }


def _revision() -> str:
    """Return the git revision of the code, or `unknown` outside a checkout."""
    if built_in := os.environ.get("CXRMODEL_REVISION"):  # an image of the code has no git
        return built_in
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return "unknown"
    return answer.stdout.strip() or "unknown"
