"""Stage `classifier`: findings from the latent numbers."""

from __future__ import annotations

from cxrmodel.config import ClassifierConfig, RuntimeConfig
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.classifier.fit import fit_classifier
from tasks.engine.stage import stage, stage_run


@stage("classifier")
def train_classifier(
    config: ClassifierConfig,
    latents: Artifact,
    index: Artifact,
    store: Store,
    runtime: RuntimeConfig,
) -> Artifact:
    """Train on the train latents and predict every image of the split."""
    with stage_run(store) as run:
        summary = fit_classifier(
            config,
            store.directory(latents),
            store.directory(index),
            run.directory,
            device=runtime.device_here,
            report=run.report,
        )
        return run.commit(summary)
