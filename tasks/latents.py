"""Stage `latents`: encode every image."""

from __future__ import annotations

from functools import partial

from cxrmodel.cluster.latents import EncodingJob, encoder_on_cluster
from cxrmodel.config import LatentsConfig, RuntimeConfig
from cxrmodel.progress import silent
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.latents import extract_latents
from tasks.engine.pixels import PixelSource
from tasks.engine.stage import ray_workers, stage, stage_run


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
    with stage_run(store) as run, ray_workers(runtime, runtime.device) as workers:
        if workers:
            open_pixels = partial(pixels.open, store, runtime, silent)
            job = EncodingJob(config, open_pixels, partial(store.directory, vae))
            encoder = encoder_on_cluster(job, workers, run.report)
            images = pixels.open_undecoded(store, runtime)  # the workers read them
        else:
            encoder, images = None, pixels.open(store, runtime, run.report)
        summary = extract_latents(
            config,
            store.directory(vae),
            images,
            store.directory(split),
            run.directory,
            parts=run.work,
            encoder=encoder,
            device=runtime.device,
            report=run.report,
        )
        return run.commit(summary)
