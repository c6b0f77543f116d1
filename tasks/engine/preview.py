"""What a run would do, stage by stage, found by walking the pipeline without running it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast

import pandas as pd
from prefect.results import ResultStore

from cxrmodel.config import SplitConfig
from cxrmodel.data.source import Source
from cxrmodel.data.splits import split_images
from cxrmodel.progress import silent
from cxrmodel.storage.layout import IMAGES_FILE, INDEX_FILE, OK
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.records import has_record, look_up
from tasks.engine.stage import PLANNER, StagePolicy, StageRun, StageTask

CACHED: Literal["cached"] = "cached"
WOULD_RUN: Literal["would run"] = "would run"
UNKNOWN: Literal["unknown"] = "unknown"

# Their results are tables made of tables, within seconds: with them the rest can be known.
PREVIEWED = ("index", "split")


@dataclass(frozen=True)
class Step:
    """What would become of one stage.

    Attributes:
        stage: Its name.
        state: `cached`, `would run`, or `unknown`: it depends on what an earlier stage makes.
        reason: Why, for people; may be empty.
    """

    stage: str
    state: Literal["cached", "would run", "unknown"]
    reason: str = ""


class UnknownResultError(Exception):
    """A key cannot be computed before the stage of that name has run."""


class Pending(Artifact):
    """Reference to a result that is not there yet; `stage` is what has to run first."""

    @property
    def fingerprint(self) -> str:
        """Raise an UnknownResultError: the content is not known."""
        raise UnknownResultError(self.stage)

    def only(self, *names: str) -> Self:
        """Return itself."""
        return self


class UnknownSource(Source):
    """A data set that is to be made first, as synthetic films are."""

    def __init__(self, root: str) -> None:
        object.__setattr__(self, "root", root)

    @property
    def fingerprint(self) -> str:
        """Raise an UnknownResultError: the content is not known."""
        raise UnknownResultError("source")


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
    """Stands in for Prefect while the pipeline is walked; computes index and split, runs no other.

    Args:
        records: The cache records of the store.
        store: The store, with a temporary scratch.
        refresh: Stages to run again even where their result is cached.

    Attributes:
        steps: What would become of each stage, in the order of the pipeline.
        results: Reference of each stage's result, `Pending` where it is not known.
        is_estimate: The split supposes that every image can be decoded.
    """

    def __init__(self, records: ResultStore, store: PlannedStore, refresh: tuple[str, ...]) -> None:
        self.steps: list[Step] = []
        self.results: dict[str, Artifact] = {}
        self.is_estimate = False
        self._records, self._store, self._refresh = records, store, refresh
        self._running = ("", "")

    def walk(self, pipeline: Callable[[], Any]) -> None:
        """Call the pipeline, whose stages then ask this plan."""
        token = PLANNER.set(self)
        try:
            pipeline()
        finally:
            PLANNER.reset(token)

    def visit(self, task: StageTask[..., Any], inputs: dict[str, Any]) -> Artifact:
        """Note what would become of a stage, and return its result as far as it is known."""
        try:
            key = cast("StagePolicy", task.cache_policy).key(task.fn, inputs)
        except UnknownResultError as error:
            result = self._not_known(task, inputs, str(error))
        else:
            result = self._looked_up(task, inputs, key)
        self.results[task.name] = result
        return result

    @contextmanager
    def stage_run(self, store: Store) -> Iterator[StageRun]:
        """Give a previewed stage its draft."""
        name, key = self._running
        with store.write(name, key.removeprefix(f"{name}-")) as draft:
            work = self._store.scratch / "work"
            yield StageRun(draft.directory, work, silent, draft, {}, time.monotonic())

    def _looked_up(self, task: StageTask[..., Any], inputs: dict[str, Any], key: str) -> Artifact:
        found = look_up(self._records, self._store, key)
        if found.artifact is not None and task.name not in self._refresh:
            self.steps.append(Step(task.name, CACHED))
            return found.artifact
        refreshed = "asked by --refresh" if found.artifact is not None else ""
        self.steps.append(Step(task.name, WOULD_RUN, found.problem or refreshed))
        if task.name not in PREVIEWED:
            return Pending(stage=task.name, key="", files={})
        self._running = (task.name, key)
        return cast("Artifact", task.fn(**inputs))

    def _not_known(
        self, task: StageTask[..., Any], inputs: dict[str, Any], waits_for: str
    ) -> Artifact:
        never_ran = not has_record(self._records, task.name)
        state = WOULD_RUN if never_ran or task.name in self._refresh else UNKNOWN
        reason = f"until {waits_for} has run" if state == UNKNOWN else ""
        self.steps.append(Step(task.name, state, reason))
        can_split = task.name == "split" and not isinstance(inputs["index"], Pending)
        summary = self._estimated_split(inputs) if can_split else {}
        return Pending(stage=waits_for, key="", files={}, summary=summary)

    def _estimated_split(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Split the index as if every image could be decoded; return the summary."""
        self.is_estimate = True
        config: SplitConfig = inputs["config"]
        index, folder = self._store.directory(inputs["index"]), self._store.scratch / "estimate"
        folder.mkdir()
        names = pd.read_parquet(index / INDEX_FILE, columns=["image"])
        names.assign(crc32=0, status=OK).to_parquet(folder / IMAGES_FILE)
        return split_images(config, index, folder, folder)
