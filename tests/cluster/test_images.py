from functools import partial
from pathlib import Path

import pytest

from cxrmodel.cluster.images import DecodingJob, decode_on_cluster
from cxrmodel.cluster.session import Workers
from cxrmodel.data.images.pixels import decode_images

pytestmark = pytest.mark.integration


def test_two_workers_find_what_one_process_finds(cluster, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrmodel.cluster.images.SHARD_ROWS", 7)
    index = prepared.folder / "index"
    job = DecodingJob(prepared.images, prepared.root, partial(Path, index))
    told = []
    decode_images(
        prepared.images,
        prepared.root,
        index,
        tmp_path,
        scratch=tmp_path / "scratch",
        decode_shards=partial(decode_on_cluster, job, Workers(2, cpus=1, gpus=0)),
        report=told.append,
    )
    expected = (prepared.folder / "images" / "images.parquet").read_bytes()
    assert (tmp_path / "images.parquet").read_bytes() == expected
    assert not (tmp_path / "scratch").exists()  # no pixels are kept here
    assert told[-1].done == told[-1].total == 40
