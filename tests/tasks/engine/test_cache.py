"""What is in the cache key of a stage, and what is not."""

import pytest

from cxrmodel.config import RuntimeConfig, SplitConfig, VAEConfig
from cxrmodel.data.split_file import SplitTable
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


def test_a_table_of_parts_counts_by_its_content_and_no_table_not_at_all(tmp_path):
    here = SplitConfig(method="file", file="/a/parts.csv")
    there = SplitConfig(method="file", file="s3://bucket/parts.csv")
    assert identify({"config": here}) == identify({"config": there})
    one, two = (SplitTable(name, tmp_path, "") for name in ("a", "b"))
    assert identify({"table": one}) != identify({"table": two})
    assert identify({"table": None, "config": SplitConfig()}) == {
        "config": {"method": "patient", "seed": 42}
    }


def test_an_input_of_an_unknown_kind_is_refused():
    with pytest.raises(TypeError, match="pixels is a bytes, which has no place in a cache key"):
        identify({"pixels": b"raw"})
