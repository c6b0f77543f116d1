"""Cache keys and retries of stages, without a server."""

import errno

import pytest
from prefect.states import Completed, Failed

from cxrmodel.config import RuntimeConfig, SplitConfig, VAEConfig
from cxrmodel.errors import DataError
from cxrmodel.storage.store import Artifact, FileRecord, Store
from tasks.engine.provenance import identify
from tasks.engine.stage import is_transient, stage_run


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


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (ConnectionError("reset"), True),
        (TimeoutError("slow"), True),
        (OSError(errno.EIO, "input or output"), True),
        (OSError(errno.ENOSPC, "disk full"), False),
        (FileNotFoundError("gone"), False),
        (PermissionError("denied"), False),
        (DataError("no usable row"), False),
        (MemoryError(), False),
        (ValueError("bad"), False),
    ],
)
def test_only_input_and_output_is_retried(error, retried):
    assert is_transient(None, None, Failed(data=error)) is retried


def test_a_success_is_not_retried():
    assert not is_transient(None, None, Completed(data="result"))


def test_a_stage_outside_a_task_is_refused(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path)
    with pytest.raises(RuntimeError, match="only for the body of a task"), stage_run(store):
        pass
