"""What lies outside the store right now; never cached, since only a look can tell."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from cxrmodel.config import DataConfig, RuntimeConfig, SplitConfig
from cxrmodel.data.source import Source, scan_source
from cxrmodel.data.split_file import SplitTable, read_split_table
from cxrmodel.phantom import write_phantoms
from cxrmodel.progress import Progress
from cxrmodel.storage.disk import check_writable
from cxrmodel.storage.store import Store
from tasks.engine.progress import progress_reporter
from tasks.engine.stage import RETRIES


@task(name="source", task_run_name="source", persist_result=False, **RETRIES)
def find_source(config: DataConfig, store: Store, runtime: RuntimeConfig) -> Source:
    """List the data set's files and fingerprint them, drawing synthetic images first if asked."""
    local = {"store.root": Path(store.root)} if store.is_local else {}
    check_writable(**{"store.scratch": store.scratch}, **local)
    if config.is_synthetic:
        root = phantom_root(config, store.scratch)
        with progress_reporter("phantom") as report:
            write_phantoms(
                root,
                config.phantom_images,
                workers=runtime.num_workers,
                report=lambda done, total: report(Progress("phantom", done, total)),
            )
        config = config.model_copy(update={"root": str(root)})
    return scan_source(config, store.scratch)


@task(name="split-file", task_run_name="split-file", persist_result=False, **RETRIES)
def find_split_table(config: SplitConfig, data: DataConfig, store: Store) -> SplitTable:
    """Read the table of `split.file`, before anything is decoded."""
    return read_split_table(config, data, store.scratch)


def phantom_root(config: DataConfig, scratch: Path) -> Path:
    """Return the folder of the synthetic images of these settings, drawn or not."""
    return scratch / "phantom" / str(config.phantom_images)
