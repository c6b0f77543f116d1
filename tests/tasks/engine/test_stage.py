"""When a stage runs again, without a server: retries, refreshes, records that are of no use."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer
from prefect.states import Completed, Failed

from cxrmodel.config import SplitConfig
from cxrmodel.errors import DataError
from cxrmodel.progress import Progress, silent
from cxrmodel.storage.store import Store
from tasks.engine import stage
from tasks.engine.records import records_url
from tasks.engine.stage import StageClock, has_failed_transiently, stage_run
from tasks.split import split_patients


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
    assert has_failed_transiently(None, None, Failed(data=error)) is retried


def test_a_success_is_not_retried():
    assert not has_failed_transiently(None, None, Completed(data="result"))


def test_a_stage_outside_a_task_is_refused(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path)
    with pytest.raises(RuntimeError, match="only for the body of a task"), stage_run(store):
        pass


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


@pytest.fixture
def inputs(store, monkeypatch):
    """The inputs of a call whose result is recorded, as within the flow."""
    place = LocalFileSystem(basepath=records_url(store.root))
    results = ResultStore(result_storage=place, serializer=JSONSerializer())
    monkeypatch.setattr(stage, "get_result_store", lambda: results)
    monkeypatch.setattr(stage, "flow_run", SimpleNamespace(parameters={"refresh": ("vae",)}))
    with store.write("split", "0" * 64) as draft:
        (draft.directory / "split.parquet").write_bytes(b"rows")
        artifact = draft.commit({}, {})
    inputs = {"config": SplitConfig(), "index": artifact, "images": artifact, "store": store}
    results.write(artifact, key=split_patients.key(inputs))
    return inputs


def contents(store: Store) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(store.root).rglob("*") if path.is_file()}


def test_a_result_that_is_all_there_is_not_made_again(inputs):
    assert not split_patients.must_refresh(inputs)
    assert not split_patients.must_refresh({**inputs, "config": SplitConfig(seed=1)})  # no record


def test_a_stage_is_refreshed_as_asked(inputs, monkeypatch):
    monkeypatch.setattr(stage, "flow_run", SimpleNamespace(parameters={"refresh": ("split",)}))
    assert split_patients.must_refresh(inputs)


def test_a_damaged_result_is_made_again_and_nothing_is_written_before(inputs, store, caplog):
    (path,) = Path(store.root).glob("split/*/split.parquet")
    path.write_bytes(b"row")
    before = contents(store)
    assert split_patients.must_refresh(inputs)
    assert contents(store) == before
    assert caplog.messages == [f"split: runs again, for {path} has 3 bytes instead of 4"]


class Unsteady(Store):
    """A store that raises some errors before it answers."""

    errors: list[Exception]

    def problems(self, artifact):
        if self.errors:
            raise self.errors.pop(0)
        return super().problems(artifact)


@pytest.fixture
def unsteady(store, inputs, monkeypatch):
    """Ask whether the stage must run again, of a store that raises these errors first."""
    monkeypatch.setattr(stage, "RETRY_DELAYS_S", (0, 0, 0))

    def ask(*errors: Exception) -> bool:
        unsteady = Unsteady(store.root, store.scratch)
        unsteady.errors = list(errors)
        return split_patients.must_refresh({**inputs, "store": unsteady})

    return ask


def test_a_store_out_of_reach_is_asked_again_and_costs_no_result(unsteady, caplog):
    assert not unsteady(ConnectionError("reset"), TimeoutError("slow"))
    assert caplog.messages == [
        "split: reset; trying again in 0 s",
        "split: slow; trying again in 0 s",
    ]


@pytest.mark.parametrize("errors", [[PermissionError("denied")], [ConnectionError("down")] * 4])
def test_what_stays_wrong_is_raised(unsteady, errors):
    with pytest.raises(type(errors[0]), match=str(errors[0])):
        unsteady(*errors)


def test_the_time_of_killed_attempts_counts(tmp_path, monkeypatch):
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(stage, "time", SimpleNamespace(monotonic=lambda: now.at))
    report = StageClock(tmp_path).reporting(silent)
    for _ in range(10):
        now.at += 1
        report(Progress("vae", 1, 10))
    now.at += 1000  # killed, and started again much later
    clock = StageClock(tmp_path)
    now.at += 5
    assert clock.seconds() == 15
