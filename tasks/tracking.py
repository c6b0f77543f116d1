"""Tracking: a finished training, or an alias that has moved, on an MLflow server; never cached.

What is logged is done already: a server that is down costs a warning, never the run.
"""

from __future__ import annotations

import logging

from prefect import task
from prefect.runtime import flow_run

from cxrmodel.config import PipelineConfig
from cxrmodel.errors import TrackingError
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.storage.aliases import Aliases
from cxrmodel.storage.layout import REPORT_FILE
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.tracking import FinishedTraining, log_alias, log_training

logger = logging.getLogger(__name__)

OF_MACHINE = {"store", "runtime", "tracking"}
"""Sections that say where a run was, not what it was."""


@task(name="track", task_run_name="track", persist_result=False)
def track_training(
    config: PipelineConfig, report: Artifact, bundle: Artifact, store: Store
) -> None:
    """Log a training and register its bundle."""
    training = FinishedTraining(
        name=str(flow_run.name),
        config=config.model_dump(mode="json", exclude=OF_MACHINE),
        report=store.directory(report),
        bundle=store.directory(bundle),
        places={"report": store.uri(report, REPORT_FILE), "bundle": store.uri(bundle)},
    )
    try:
        version = log_training(config.tracking, training)
        logger.info("Tracked as version %s of %s", version, config.tracking.name)
    except TrackingError as error:
        logger.warning("The run is not tracked: %s. Its results are in the store.", error)


@task(name="track-alias", task_run_name="track-alias", persist_result=False)
def track_alias(config: PromoteConfig) -> None:
    """Give the tracked model's alias to the version that has the store's alias now."""
    now = Aliases(config.store.root).current(config.alias)
    if now is None:
        return
    try:
        version = log_alias(config.tracking, config.alias, now.digest)
        logger.info(
            "Version %s of %s has the alias %s", version, config.tracking.name, config.alias
        )
    except TrackingError as error:
        logger.warning("The alias %s is not tracked: %s. The store has it.", config.alias, error)
