"""Monitoring: compare the images that were scored last with the reference; never cached."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event

from cxrmodel.inference.use_config import MonitorConfig
from cxrmodel.monitoring.watch import Watched, keep, watch
from cxrmodel.threads import use_threads
from tasks.engine.stage import RETRIES

DRIFT_EVENT = "cxrmodel.drift"


@task(name="find-drift", task_run_name="find-drift", persist_result=False, **RETRIES)
def watch_newest(config: MonitorConfig) -> Watched:
    """Write page and table of the images that were scored last."""
    use_threads()
    return watch(config)


@task(name="tell-of-drift", task_run_name="tell-of-drift", persist_result=False, **RETRIES)
def tell_of_drift(watched: Watched) -> dict[str, str]:
    """Show a window in Prefect's page; of one that is new and has drifted, an event tells."""
    if watched.too_few:
        return {"not tested": watched.too_few}
    found = watched.found
    page = f"{watched.location}/drift.html"
    create_table_artifact(
        found["drifted"] or [{"drift": "none"}],
        key="drift",
        description=f"{found['verdict']} The page: {page}",
    )
    if watched.is_new:
        if found["is_drift"]:
            resource = {
                "prefect.resource.id": f"cxrmodel.bundle.{found['bundle']}",
                "prefect.resource.name": watched.location,
            }
            emit_event(DRIFT_EVENT, resource, payload={**found, "location": watched.location})
        keep(watched)
    return {
        "drift": found["verdict"],
        "window": f"{found['num_images']:,} images of {found['num_patients']:,} patients"
        + ("" if watched.is_new else ", the same as before"),
        "page": page,
    }
