"""Stage `images`: decode every image once, and keep a checksum of its pixels."""

from __future__ import annotations

from cxrmodel.config import ImagesConfig, RuntimeConfig
from cxrmodel.data.pixels import decode_images
from cxrmodel.store import Artifact, Store
from tasks.stage import stage, stage_run


@stage("images")
def decode_listed_images(
    config: ImagesConfig, root: str, index: Artifact, store: Store, runtime: RuntimeConfig
) -> Artifact:
    """Decode the listed files into the node-local cache; damaged ones go to the ledger."""
    with stage_run(store) as run:
        summary = decode_images(
            config,
            root,
            store.directory(index),
            run.directory,
            scratch=store.scratch,
            num_workers=runtime.num_workers,
            report=run.report,
        )
        return run.commit(summary)
