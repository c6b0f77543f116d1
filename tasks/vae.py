"""Stage `vae`: train the variational autoencoder."""

from __future__ import annotations

from cxrmodel.config import RuntimeConfig, VAEConfig
from cxrmodel.store import Artifact, Store
from cxrmodel.training.vae import fit_vae
from tasks.pixels import PixelSource
from tasks.stage import stage, stage_run


@stage("vae")
def train_vae(
    config: VAEConfig, pixels: PixelSource, split: Artifact, store: Store, runtime: RuntimeConfig
) -> Artifact:
    """Train on the train images; a killed run goes on from its last checkpoint."""
    with stage_run(store) as run:
        summary = fit_vae(
            config,
            pixels.open(store, runtime, run.report),
            store.directory(split),
            run.directory,
            checkpoints=run.work,
            device=runtime.device,
            report=run.report,
        )
        return run.commit(summary)
