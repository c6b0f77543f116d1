"""Stage `split`: train, validation and test, by patient unless asked otherwise."""

from __future__ import annotations

from cxrmodel.config import SplitConfig
from cxrmodel.data.split_file import SplitTable
from cxrmodel.data.splits import split_images
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.stage import stage, stage_run


@stage("split", is_previewed=True)
def split_patients(
    config: SplitConfig,
    index: Artifact,
    images: Artifact,
    store: Store,
    table: SplitTable | None = None,
) -> Artifact:
    """Assign every usable image to a part; fails where a patient is in two of them."""
    with stage_run(store) as run:
        folders = store.directory(index), store.directory(images)
        left_out = index.summary["excluded_by_reason"]
        return run.commit(split_images(config, *folders, run.directory, left_out, table))
