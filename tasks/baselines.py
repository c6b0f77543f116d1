"""Stage `baselines`: what the same split gives without a neural network."""

from __future__ import annotations

from cxrmodel.config import RuntimeConfig
from cxrmodel.evaluation.baselines import fit_baselines
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.pixels import PixelSource
from tasks.engine.stage import stage, stage_run


@stage("baselines")
def fit_pca_baseline(
    pixels: PixelSource, split: Artifact, index: Artifact, store: Store, runtime: RuntimeConfig
) -> Artifact:
    """Fit PCA and logistic regression on the train images and predict every image."""
    with stage_run(store) as run:
        summary = fit_baselines(
            pixels.open(store, runtime, run.report),
            store.directory(split),
            store.directory(index),
            run.directory,
            report=run.report,
        )
        return run.commit(summary)
