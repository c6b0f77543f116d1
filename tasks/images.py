"""Stage `images`: decode every image once, and keep a checksum of its pixels."""

from __future__ import annotations

from functools import partial

from cxrmodel.cluster.images import DecodingJob, decode_on_cluster
from cxrmodel.config import ImagesConfig, RuntimeConfig
from cxrmodel.data.images.pixels import decode_images
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.stage import ray_workers, stage, stage_run


@stage("images")
def decode_listed_images(
    config: ImagesConfig, root: str, index: Artifact, store: Store, runtime: RuntimeConfig
) -> Artifact:
    """Decode the listed files into the node-local cache; damaged ones go to the ledger."""
    with stage_run(store) as run, ray_workers(runtime, "cpu") as workers:
        decode_shards = None
        if workers:
            open_index = partial(store.directory, index)
            job = DecodingJob(config, root, open_index, runtime.num_workers)
            decode_shards = partial(decode_on_cluster, job, workers)
        summary = decode_images(
            config,
            root,
            store.directory(index),
            run.directory,
            scratch=store.scratch,
            num_workers=runtime.num_workers,
            decode_shards=decode_shards,
            report=run.report,
        )
        return run.commit(summary)
