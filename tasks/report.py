"""Stage `report`: numbers, figures and the page of one run."""

from __future__ import annotations

from cxrmodel.code_digest import revision
from cxrmodel.config import PipelineConfig, RuntimeConfig
from cxrmodel.report.write import RunInputs, RunRecord, write_report
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.speed import SPEED
from tasks.engine.pixels import PixelSource
from tasks.engine.provenance import combined_fingerprint, package_versions
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
    return RunRecord(
        config=config.model_dump(exclude={"preset", "store", "runtime", "tracking"}),
        provenance={
            "code": revision(),
            "config": config.fingerprint(),
            "packages": package_versions(),
        },
        timings_s={name: artifact.seconds for name, artifact in stages.items()},
        data_fingerprint=combined_fingerprint(stages["index"], stages["images"]),
        dataset=stages["index"].summary["dataset"],
        training_speed={name: stages["vae"].summary[name] for name in SPEED},
    )
