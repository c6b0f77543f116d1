"""Stage `pca_network`: findings from principal components, as a baseline of the classifier."""

from __future__ import annotations

from cxrmodel.config import ClassifierConfig, RuntimeConfig
from cxrmodel.storage.layout import PCA_LATENTS_FOLDER
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.classifier.fit import fit_classifier
from tasks.engine.stage import stage, stage_run


@stage("pca_network")
def train_pca_network(
    config: ClassifierConfig,
    baselines: Artifact,
    index: Artifact,
    store: Store,
    runtime: RuntimeConfig,
) -> Artifact:
    """Train the classifier's network on principal components instead of latents."""
    with stage_run(store) as run:
        if not baselines.summary["num_components"]:  # all train images are the same
            return run.commit({"num_components": 0})
        summary = fit_classifier(
            config,
            store.directory(baselines) / PCA_LATENTS_FOLDER,
            store.directory(index),
            run.directory,
            device=runtime.device_here,
            report=run.report,
        )
        return run.commit(summary)
