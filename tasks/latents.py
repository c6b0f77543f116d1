"""Stage `latents`: encode every image."""

from __future__ import annotations

from cxrmodel.config import LatentsConfig, RuntimeConfig
from cxrmodel.store import Artifact, Store
from cxrmodel.training.latents import extract_latents
from tasks.pixels import PixelSource
from tasks.stage import stage, stage_run


@stage("latents")
def encode_images(
    config: LatentsConfig,
    vae: Artifact,
    pixels: PixelSource,
    split: Artifact,
    store: Store,
    runtime: RuntimeConfig,
) -> Artifact:
    """Write mean, log-variance and reconstruction error of every image of the split."""
    with stage_run(store) as run:
        summary = extract_latents(
            config,
            store.directory(vae),
            pixels.open(store, runtime, run.report),
            store.directory(split),
            run.directory,
            parts=run.work,
            device=runtime.device,
            report=run.report,
        )
        return run.commit(summary)
