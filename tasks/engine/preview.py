"""What a run would do, stage by stage, found by walking the pipeline without running it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from prefect.filesystems import LocalFileSystem, RemoteFileSystem

from cxrmodel.progress import silent
from cxrmodel.storage.store import Artifact, FileRecord, Store
from tasks.engine.pixels import PixelSource
from tasks.engine.records import has_record, look_up
from tasks.engine.stage import PLANNER, StageClock, StageRun, StageTask

State = Literal["cached", "would run", "unknown"]
CACHED: State = "cached"
WOULD_RUN: State = "would run"
UNKNOWN: State = "unknown"


@dataclass(frozen=True)
class Step:
    """What would become of one stage.

    Attributes:
        stage: Its name.
        state: `cached`, `would run`, or `unknown`: it depends on what an earlier stage makes.
        reason: Why, for people; may be empty.
        reads_pixels: It works on decoded images.
        identity: The same for two calls only where their results would be.
    """

    stage: str
    state: State
    reason: str = ""
    reads_pixels: bool = False
    identity: str = ""


@dataclass(frozen=True)
class Unknown:
    """Stands for an artifact, or a data set, that is not there yet.

    Attributes:
        waits_for: The stage that has to run first.
        root: Of the data set.
        identity: That of the call which makes it.
    """

    waits_for: str
    root: str = ""
    identity: str = ""

    def only(self, *names: str) -> Self:
        """Return itself: no file is known yet."""
        return self

    @property
    def fingerprint(self) -> str:
        """Stands for that of the content, to tell calls apart."""
        return self.identity


def missing_input(inputs: dict[str, Any]) -> str | None:
    """Return the stage that has to run before these inputs are known, None where they all are."""
    for _, value in sorted(inputs.items()):
        found = None
        if isinstance(value, Unknown):
            found = value.waits_for
        elif isinstance(value, PixelSource):
            found = missing_input({"images": value.images, "index": value.index})
        elif isinstance(value, dict):
            found = missing_input(value)
        if found:
            return found
    return None


def _with_stand_ins(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return inputs that a key can be made of, whose unknown artifacts have their identities."""
    return {name: _stand_in(value) for name, value in inputs.items()}


def _stand_in(value: Any) -> Any:
    if isinstance(value, Unknown):
        record = FileRecord(bytes=0, sha256=value.identity)
        return Artifact(stage=value.waits_for, key="unknown", files={"unknown": record})
    return _with_stand_ins(value) if isinstance(value, dict) else value


class PlannedStore(Store):
    """A store that is only read; what is published stays in scratch, which is to be temporary."""

    def publish(self, artifact: Artifact, directory: Path, provenance: dict[str, Any]) -> None:
        """Keep a copy of the files in scratch."""
        shutil.copytree(directory, self._kept(artifact), dirs_exist_ok=True)

    def directory(self, artifact: Artifact) -> Path:
        """Return the folder of the files, those kept in scratch first."""
        kept = self._kept(artifact)
        return kept if kept.is_dir() else super().directory(artifact)

    def _kept(self, artifact: Artifact) -> Path:
        return self.scratch / "planned" / artifact.stage / artifact.key


class Plan:
    """Stands in for Prefect while the pipeline is walked; runs none but the previewed stages.

    Args:
        records: The cache records of the store.
        store: The store, with a temporary scratch.
        refresh: Stages to run again even where their result is cached.

    Attributes:
        steps: What would become of each stage, in the order of the pipeline.
        results: Reference of each stage's result, as far as it is known.
    """

    def __init__(
        self,
        records: LocalFileSystem | RemoteFileSystem,
        store: PlannedStore,
        refresh: tuple[str, ...],
    ) -> None:
        self.steps: list[Step] = []
        self.results: dict[str, Artifact | Unknown] = {}
        self._records, self._store, self._refresh = records, store, refresh
        self._running = ("", "")
        self._previewed: dict[str, Artifact] = {}  # several walks may share it

    def walk(self, pipeline: Callable[[], Any]) -> None:
        """Call the pipeline, whose stages then ask this plan."""
        token = PLANNER.set(self)
        try:
            pipeline()
        finally:
            PLANNER.reset(token)

    def visit(self, task: StageTask[..., Any], inputs: dict[str, Any]) -> Artifact | Unknown:
        """Note what would become of a stage, and return its result as far as it is known."""
        missing = missing_input(inputs)
        if missing:
            identity = task.key(_with_stand_ins(inputs))
            state, reason = self._without_inputs(task, missing)
            result: Artifact | Unknown = Unknown(missing, identity=identity)
        else:
            identity = task.key(inputs)
            state, reason, result = self._look_up(task, inputs, identity)
        reads_pixels = any(isinstance(value, PixelSource) for value in inputs.values())
        self.steps.append(Step(task.name, state, reason, reads_pixels, identity))
        self.results[task.name] = result
        return result

    @contextmanager
    def stage_run(self, store: Store) -> Iterator[StageRun]:
        """Give a previewed stage its draft."""
        name, key = self._running
        with store.write(name, key.removeprefix(f"{name}-")) as draft:
            work = self._store.scratch / "work"
            yield StageRun(draft.directory, work, silent, draft, {}, StageClock(work))

    def _look_up(
        self, task: StageTask[..., Any], inputs: dict[str, Any], key: str
    ) -> tuple[State, str, Artifact | Unknown]:
        found = look_up(self._records, self._store, key)
        if found.artifact is not None and task.name not in self._refresh:
            return CACHED, "", found.artifact
        reason = found.problem or ("asked by --refresh" if found.artifact else "")
        if not task.is_previewed:
            return WOULD_RUN, reason, Unknown(task.name, identity=key)
        if key not in self._previewed:
            self._running = (task.name, key)
            self._previewed[key] = task.fn(**inputs)
        return WOULD_RUN, reason, self._previewed[key]

    def _without_inputs(self, task: StageTask[..., Any], missing: str) -> tuple[State, str]:
        never_ran = not has_record(self._records, task.name)
        if never_ran or task.name in self._refresh:
            return WOULD_RUN, ""
        return UNKNOWN, f"until {missing} has run"
