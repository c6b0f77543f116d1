"""Stage `vae`: train the variational autoencoder."""

from __future__ import annotations

from functools import partial

from cxrmodel.cluster.vae import TrainingJob, fit_vae_on_cluster
from cxrmodel.config import CHECKPOINTS_FOLDER, RuntimeConfig, VAEConfig
from cxrmodel.progress import silent
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.checkpoint_copies import CheckpointCopies
from cxrmodel.training.vae.fit import fit_vae
from tasks.engine.pixels import PixelSource
from tasks.engine.stage import ray_workers, stage, stage_run


@stage("vae")
def train_vae(
    config: VAEConfig, pixels: PixelSource, split: Artifact, store: Store, runtime: RuntimeConfig
) -> Artifact:
    """Train on the train images; a killed run goes on from its last checkpoint.

    Where the store is remote, checkpoints are copied to it too, for a retry on another machine.
    """
    with stage_run(store) as run, ray_workers(runtime, runtime.device) as workers:
        folder = store.remote_folder(f"{CHECKPOINTS_FOLDER}/{run.work.name}")
        copies = CheckpointCopies(folder, config.checkpoint_every_s) if folder else None
        if workers:
            open_pixels = partial(pixels.open, store, runtime, silent)
            open_split = partial(store.directory, split)
            job = TrainingJob(config, open_pixels, open_split, run.work, copies)
            summary = fit_vae_on_cluster(
                job, workers, run.directory, scratch=store.scratch, report=run.report
            )
        else:
            summary = fit_vae(
                config,
                pixels.open(store, runtime, run.report),
                store.directory(split),
                run.directory,
                checkpoints=run.work,
                copies=copies,
                device=runtime.device,
                num_threads=runtime.num_threads,
                report=run.report,
            )
        artifact = run.commit(summary)
        if copies:
            copies.clear()
        return artifact
