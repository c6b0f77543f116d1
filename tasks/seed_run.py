"""The stored run of the notebook's settings on the data and split of a run, if there is one."""

from __future__ import annotations

import logging
from typing import Any, cast

from cxrmodel.config import PipelineConfig
from cxrmodel.report.seed_run import SETTINGS, is_seed
from cxrmodel.store import Artifact, Store
from tasks.classifier import train_classifier
from tasks.latents import encode_images
from tasks.pixels import PixelSource
from tasks.plan import UnknownResultError
from tasks.records import look_up, open_records
from tasks.stage import TRANSIENT, StagePolicy, StageTask
from tasks.vae import train_vae

logger = logging.getLogger(__name__)


def find_seed_run(
    config: PipelineConfig, pixels: PixelSource, split: Artifact, index: Artifact, store: Store
) -> dict[str, Artifact]:
    """Look the seed's stages up under the cache keys that they would have; nothing is run.

    Args:
        config: Settings of the run that is to be compared.
        pixels: Its images.
        split: Its split.
        index: Its labels.
        store: Where to look.

    Returns:
        `seed_latents` and `seed_classifier`; nothing where one is missing, or where the run is
        itself of those settings.
    """
    if is_seed(config.model_dump()):
        return {}
    records = open_records(store.root)

    def stored(task: Any, **inputs: Any) -> Artifact | None:
        policy = cast("StagePolicy", cast("StageTask[..., Any]", task).cache_policy)
        settings = SETTINGS[policy.stage]
        return look_up(records, store, policy.key(task.fn, {"config": settings, **inputs})).artifact

    try:
        vae = stored(train_vae, pixels=pixels, split=split)
        if vae is None:
            return {}
        weights = vae.only("vae.safetensors", "config.json")
        latents = stored(encode_images, vae=weights, pixels=pixels, split=split)
        classifier = latents and stored(train_classifier, latents=latents, index=index)
    except UnknownResultError:  # a run is planned whose images or split are not known yet
        return {}
    except TRANSIENT as error:  # the comparison is not worth a run
        logger.warning("The notebook's run is not looked for: %s: %s", type(error).__name__, error)
        return {}
    if latents is None or classifier is None:
        return {}
    return {
        "seed_latents": latents.only("latents.parquet"),
        "seed_classifier": classifier.only("predictions.parquet"),
    }
