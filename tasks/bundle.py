"""Stage `bundle`: everything that using the model elsewhere needs, in one folder."""

from __future__ import annotations

from cxrmodel.config import ImagesConfig, RuntimeConfig
from cxrmodel.inference.build import BundleInputs, build_bundle
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.pixels import PixelSource
from tasks.engine.stage import stage, stage_run


@stage("bundle")
def bundle_model(
    config: ImagesConfig,
    stages: dict[str, Artifact],
    pixels: PixelSource,
    store: Store,
    runtime: RuntimeConfig,
) -> Artifact:
    """Gather weights, preprocessing, thresholds and reference scores of one run."""
    with stage_run(store) as run:
        summary = build_bundle(
            BundleInputs(**{name: store.directory(artifact) for name, artifact in stages.items()}),
            pixels.open(store, runtime, run.report),
            config,
            stages["latents"].summary["precision"],
            run.directory,
        )
        return run.commit(summary)
