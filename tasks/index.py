"""Stage `index`: which images there are, and what is known of each."""

from __future__ import annotations

from cxrmodel.config import DataConfig
from cxrmodel.data.index import build_index
from cxrmodel.data.source import Source
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.stage import stage, stage_run


@stage("index", is_previewed=True)
def index_images(config: DataConfig, source: Source, store: Store) -> Artifact:
    """Join the metadata CSV with the listing; every row ends in the index or in the ledger."""
    with stage_run(store) as run:
        return run.commit(build_index(config, source, run.directory))
