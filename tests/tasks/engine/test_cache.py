"""What is in the cache key of a stage, and what is not."""

import pytest

from cxrmodel.config import RuntimeConfig, SplitConfig, VAEConfig
from cxrmodel.storage.store import Artifact, FileRecord, Store
from tasks.engine.cache import identify


def artifact(sha256: str, **changes) -> Artifact:
    files = {"index.parquet": FileRecord(bytes=1, sha256=sha256)}
    return Artifact(**{"stage": "index", "key": "k", "files": files, **changes})


def test_content_and_settings_identify_an_input():
    first = identify({"config": SplitConfig(), "index": artifact("a")})
    assert first == identify({"config": SplitConfig(), "index": artifact("a")})
    assert first != identify({"config": SplitConfig(seed=1), "index": artifact("a")})
    assert first != identify({"config": SplitConfig(), "index": artifact("b")})


def test_where_an_input_came_from_does_not(tmp_path):
    moved = artifact("a", key="elsewhere", seconds=9.0, summary={"num_images": 3})
    assert identify({"index": artifact("a")}) == identify({"index": moved})
    here, there = Store(str(tmp_path / "a"), tmp_path), Store(str(tmp_path / "b"), tmp_path)
    local = identify({"store": here, "runtime": RuntimeConfig(), "root": "/data"})
    assert local == identify({"store": there, "runtime": RuntimeConfig(device="cpu"), "root": "/"})
    often = VAEConfig(checkpoint_every_s=1)
    assert identify({"config": often}) == identify({"config": VAEConfig()})


def test_an_input_of_an_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="pixels is a bytes, which has no place in a cache key"):
        identify({"pixels": b"raw"})
