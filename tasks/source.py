"""What the data set's root holds right now; never cached, since only a look can tell."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.tasks import exponential_backoff

from cxrmodel.config import PHANTOM_ROOT, DataConfig, RuntimeConfig
from cxrmodel.data.source import Source, scan_source
from cxrmodel.phantom import write_phantoms
from cxrmodel.progress import Progress
from cxrmodel.storage.disk import check_writable
from cxrmodel.storage.store import Store
from tasks.engine.progress import progress_reporter
from tasks.engine.stage import is_transient


@task(
    name="source",
    task_run_name="source",
    retries=3,
    retry_delay_seconds=exponential_backoff(10),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
    persist_result=False,
)
def find_source(config: DataConfig, store: Store, runtime: RuntimeConfig) -> Source:
    """List the data set's files and fingerprint them, drawing phantoms first where configured."""
    local = {"store.root": Path(store.root)} if store.is_local else {}
    check_writable(**{"store.scratch": store.scratch}, **local)
    if config.root == PHANTOM_ROOT:
        root = _draw_phantoms(config.phantom_images, store.scratch, runtime)
        config = config.model_copy(update={"root": str(root)})
    return scan_source(config, store.scratch)


def phantom_root(num_images: int, scratch: Path) -> Path:
    """Return the folder of so many synthetic films, drawn or not."""
    return scratch / "phantom" / str(num_images)


def _draw_phantoms(num_images: int, scratch: Path, runtime: RuntimeConfig) -> Path:
    root = phantom_root(num_images, scratch)
    with progress_reporter("phantom") as report:
        write_phantoms(
            root,
            num_images,
            workers=runtime.num_workers,
            report=lambda done, total: report(Progress("phantom", done, total)),
        )
    return root
