"""`python flows/main.py --dry-run`: what a run would do, and what it needs, without running it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from rich.filesize import pick_unit_and_suffix

from cxrmodel.config import PHANTOM_ROOT, PipelineConfig, Stage
from cxrmodel.data.ledger import count_reasons
from cxrmodel.data.source import Source, scan_source
from cxrmodel.storage.disk import free_bytes
from cxrmodel.storage.layout import EXCLUDED_FILE
from cxrmodel.storage.store import Artifact, Store
from flows.needs import Reading, Training, reading, training
from tasks.engine.preview import (
    CACHED,
    Pending,
    Plan,
    PlannedStore,
    UnknownSource,
)
from tasks.engine.records import open_records
from tasks.source import phantom_root

LABEL_CHARS = 12
PARTS = ("train", "val", "test")

Stages = Callable[[PipelineConfig, Source, Store], dict[str, Artifact]]


def describe_run(config: PipelineConfig, refresh: tuple[Stage, ...], stages: Stages) -> str:
    """Return what a run with these settings would do; nothing is kept, here or in the store.

    The data set is listed, indexed and split in a temporary folder, so the rest is exact.

    Args:
        config: Settings of the run.
        refresh: Stages to run again even where their result is cached.
        stages: The pipeline, from the index to the report.

    Raises:
        DataError: There is no usable data set.
        SplitError: It cannot be split as asked.
        ValueError: The machine has no such device.
    """
    with tempfile.TemporaryDirectory(prefix="cxrmodel-dry-run-") as folder:
        store = PlannedStore(config.store.root, folder)
        plan = Plan(open_records(config.store.root), store, refresh)
        source = _source(config, Path(folder))
        plan.walk(lambda: stages(config, source, store))
        return "\n".join([*_stage_lines(plan), "", *_need_lines(config, plan, store)])


def _source(config: PipelineConfig, temporary: Path) -> Source:
    if config.data.root != PHANTOM_ROOT:
        return scan_source(config.data, temporary)
    root = phantom_root(config.data.phantom_images, Path(config.store.scratch).absolute())
    if not any(root.glob("Data_Entry*.csv")):  # written last
        return UnknownSource(str(root))
    return scan_source(config.data.model_copy(update={"root": str(root)}), temporary)


def _stage_lines(plan: Plan) -> Iterator[str]:
    for step in plan.steps:
        yield _line(step.stage, ": ".join(filter(None, (step.state, step.reason))))


def _need_lines(config: PipelineConfig, plan: Plan, store: Store) -> Iterator[str]:
    index = plan.results["index"]
    needs = training(config)
    pixels = None
    if isinstance(index, Pending):
        yield _line("images", f"{config.data.phantom_images:,} synthetic ones, to be drawn first")
    else:
        pixels = reading(config, plan.steps, store.directory(index))
        yield _line("images", f"{index.summary['num_images']:,} in {config.data.root}")
        yield from _excluded(plan, store)
        yield _line("split", _split(plan))
        yield _line("to read", _to_read(pixels))
    yield _line("scratch", _scratch(config, plan, pixels, needs))
    yield _line("memory", _memory(config, needs))
    yield _line("device", f"{needs.device}, {needs.precision}")


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}}{text}"


def _excluded(plan: Plan, store: Store) -> Iterator[str]:
    known = [plan.results[name] for name in ("index", "images", "split")]
    known = [artifact for artifact in known if not isinstance(artifact, Pending)]
    rows = pd.concat([pd.read_parquet(store.directory(a) / EXCLUDED_FILE) for a in known])
    counts = ", ".join(f"{reason} {count:,}" for reason, count in count_reasons(rows).items())
    more = "" if len(known) == len(PARTS) else "; damaged ones are known once all are decoded"
    yield _line("left out", (f"{len(rows):,}: {counts}" if counts else "none") + more)


def _split(plan: Plan) -> str:
    summary = plan.results["split"].summary
    parts = ", ".join(f"{summary[f'num_{part}']:,} {part}" for part in PARTS)
    guess = "; an estimate, as if every image could be decoded" if plan.is_estimate else ""
    return f"{parts}, by {summary['method']}{guess}"


def _to_read(pixels: Reading) -> str:
    if not pixels.images:
        return "nothing: what is needed is decoded"
    again = ", at every pass over the images, for images.cache is off"
    return f"{pixels.images:,} files, {_size(pixels.bytes)}{again if pixels.is_repeated else ''}"


def _scratch(config: PipelineConfig, plan: Plan, pixels: Reading | None, needs: Training) -> str:
    images = pixels.images if pixels else config.data.phantom_images
    decoded = images * config.images.size**2 if config.images.cache else 0
    trains = any(step.stage == "vae" and step.state != CACHED for step in plan.steps)
    checkpoints = needs.checkpoint_bytes if trains else 0
    folder = Path(config.store.scratch)
    free = free_bytes(folder)
    too_little = ": TOO LITTLE" if decoded + checkpoints > free else ""
    return (
        f"{_size(decoded)} for pixels and {_size(checkpoints)} for checkpoints; "
        f"{_size(free)} free in {folder}{too_little}"
    )


def _memory(config: PipelineConfig, needs: Training) -> str:
    there = "a Ray worker has what its machine gives it"
    if needs.bytes_there is not None:
        there = f"the device has {_size(needs.bytes_there)}"
    return (
        f"about {_size(needs.bytes)} to train at batch {needs.batch_size}, "
        f"{config.images.size} px; {there}"
    )


def _size(num_bytes: int) -> str:
    unit, suffix = pick_unit_and_suffix(num_bytes, ["bytes", "KiB", "MiB", "GiB", "TiB"], 1024)
    return f"{num_bytes / unit:,.{0 if unit == 1 else 1}f} {suffix}"
