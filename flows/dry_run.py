"""`python flows/main.py --dry-run`: what a run would do, and what it needs, without running it."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
from rich.filesize import pick_unit_and_suffix

from cxrmodel.config import PipelineConfig, Stage
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.data.images.reader import is_unfinished
from cxrmodel.data.ledger import count_reasons
from cxrmodel.data.source import Source, scan_source
from cxrmodel.data.split_file import SplitTable, read_split_table
from cxrmodel.data.splits import split_images
from cxrmodel.storage.disk import free_bytes
from cxrmodel.storage.layout import (
    EXCLUDED_FILE,
    IMAGES_FILE,
    INDEX_FILE,
    LISTING_FILE,
    NOTES_FILE,
    OK,
)
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.sweep_config import SweepConfig
from cxrmodel.training.devices import resolve_device, resolve_precision
from cxrmodel.training.vae.auto_settings import (
    STATES_PER_WEIGHT,
    STEP_FACTOR,
    memory_bytes,
    resolve_config,
    saved_bytes,
)
from cxrmodel.training.vae.objective import make_objective
from cxrmodel.training.vae.state import initial_vae
from tasks.engine.preview import (
    CACHED,
    UNKNOWN,
    WOULD_RUN,
    Plan,
    PlannedStore,
    Step,
    Unknown,
)
from tasks.engine.records import open_records
from tasks.source import phantom_root

LABEL_CHARS = 12
PARTS = ("train", "val", "test")
PROCESS_BYTES = 300 << 20
"""Python with the libraries loaded, before the first step."""

CHECKPOINT_WEIGHTS = 10
"""Three times weights and Adam's two moments, and the best weights."""

Stages = Callable[[PipelineConfig, Source, SplitTable | None, Store], dict[str, Artifact]]


@dataclass(frozen=True)
class Reading:
    """What is to be read of the data set.

    Attributes:
        images: Files not decoded in scratch yet.
        bytes: Their size together.
        is_repeated: Nothing is kept: as much is read at every pass over the images.
    """

    images: int
    bytes: int
    is_repeated: bool


@dataclass(frozen=True)
class Training:
    """What training takes.

    Attributes:
        device: Where it would run.
        precision: Its arithmetic there.
        batch_size: Images per step.
        bytes: Memory it takes, about.
        bytes_there: Memory of the device; None where it is one of a Ray cluster.
        checkpoint_bytes: Room of its checkpoints in scratch, at most.
    """

    device: str
    precision: str
    batch_size: int
    bytes: int
    bytes_there: int | None
    checkpoint_bytes: int


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
        source = cast("Source", _source(config, Path(folder)))  # the plan knows what is unknown
        table = _split_table(config, store.scratch)
        plan.walk(lambda: stages(config, source, table, store))
        return "\n".join([*_stage_lines(plan), "", *_need_lines(config, plan, store, table)])


def describe_sweep(sweep: SweepConfig, stages: Stages) -> str:
    """Return what a sweep would do; nothing is kept, here or in the store.

    Args:
        sweep: The sweep.
        stages: The pipeline, from the index to the report.

    Raises:
        DataError: There is no usable data set.
        SplitError: It cannot be split as asked.
    """
    with tempfile.TemporaryDirectory(prefix="cxrmodel-dry-run-") as folder:
        store = PlannedStore(sweep.base.store.root, folder)
        source = cast("Source", _source(sweep.base, Path(folder)))
        table = _split_table(sweep.base, store.scratch)
        plan = Plan(open_records(sweep.base.store.root), store, ())
        for run in sweep.runs():
            plan.walk(partial(stages, run.config, source, table, store))
    return "\n".join(_sweep_lines(sweep, plan.steps))


def _sweep_lines(sweep: SweepConfig, steps: list[Step]) -> Iterator[str]:
    """Say how often each stage would run; what several trainings share counts once."""
    num_runs = len(sweep.settings) * len(sweep.seeds)
    yield (
        f"{len(sweep.settings)} settings and {len(sweep.seeds)} seeds: {num_runs} trainings with "
        f"{len(steps)} stage runs"
    )
    total: Counter[str] = Counter()
    for stage in dict.fromkeys(step.stage for step in steps):
        distinct = {step.identity: step for step in steps if step.stage == stage}
        counts: Counter[str] = Counter(step.state for step in distinct.values())
        counts["shared"] = num_runs - len(distinct)
        total += counts
        yield _line(stage, _counted(counts))
    yield ""
    yield _line("together", _counted(total))


def _counted(counts: Counter[str]) -> str:
    return ", ".join(
        f"{counts[name]} {name}" for name in ("shared", CACHED, WOULD_RUN, UNKNOWN) if counts[name]
    )


def _source(config: PipelineConfig, temporary: Path) -> Source | Unknown:
    if not config.data.is_synthetic:
        return scan_source(config.data, temporary)
    root = phantom_root(config.data, Path(config.store.scratch).absolute())
    if not any(root.glob("Data_Entry*.csv")):  # written last
        return Unknown("source", str(root))
    return scan_source(config.data.model_copy(update={"root": str(root)}), temporary)


def _split_table(config: PipelineConfig, temporary: Path) -> SplitTable | None:
    return read_split_table(config.split, config.data, temporary) if config.split.file else None


def _stage_lines(plan: Plan) -> Iterator[str]:
    for step in plan.steps:
        yield _line(step.stage, ": ".join(filter(None, (step.state, step.reason))))


def _need_lines(
    config: PipelineConfig, plan: Plan, store: Store, table: SplitTable | None
) -> Iterator[str]:
    index = plan.results["index"]
    needs = training(config)
    pixels = None
    if isinstance(index, Unknown):
        yield _line("images", f"{config.data.phantom_images:,} synthetic ones, to be drawn first")
    else:
        folder = store.directory(index)
        pixels = reading(config, plan.steps, folder)
        yield _line(
            "images", f"{index.summary['num_images']:,} in {' and '.join(config.data.roots)}"
        )
        yield _line("left out", _excluded(plan, store))
        yield _line("split", _split(config, plan, folder, store, table))
        yield _line("to read", _to_read(pixels))
    yield _line("scratch", _scratch(config, plan, pixels, needs))
    yield _line("memory", _memory(config, needs))
    yield _line("device", f"{needs.device}, {needs.precision}")


def _line(label: str, text: str) -> str:
    return f"{label:<{LABEL_CHARS}}{text}"


def _excluded(plan: Plan, store: Store) -> str:
    known = [result for result in plan.results.values() if isinstance(result, Artifact)]
    ledgers = [
        store.directory(each) / EXCLUDED_FILE for each in known if EXCLUDED_FILE in each.files
    ]
    rows = pd.concat(map(pd.read_parquet, ledgers))
    counts = ", ".join(f"{reason} {count:,}" for reason, count in count_reasons(rows).items())
    is_decoded = isinstance(plan.results["images"], Artifact)
    more = "" if is_decoded else "; damaged ones are known once all are decoded"
    return (f"{len(rows):,}: {counts}" if counts else "none") + more


def _split(
    config: PipelineConfig, plan: Plan, index: Path, store: Store, table: SplitTable | None
) -> str:
    split = plan.results["split"]
    if isinstance(split, Unknown):
        folder = store.scratch / "estimate"
        summary = _estimated_split(config, index, folder, table)
        note = "; an estimate, as if every image could be decoded"
    else:
        folder, summary, note = store.directory(split), split.summary, ""
    parts = ", ".join(f"{summary[f'num_{part}']:,} {part}" for part in PARTS)
    without = len(pd.read_parquet(folder / EXCLUDED_FILE))
    left_out = f", {without:,} without a part" if without else ""
    notes = json.loads((folder / NOTES_FILE).read_text("utf-8"))
    lines = f"{parts}{left_out}, by {summary['method']}{note}", *notes
    return f"\n{'':<{LABEL_CHARS}}".join(lines)


def _estimated_split(
    config: PipelineConfig, index: Path, folder: Path, table: SplitTable | None
) -> dict[str, Any]:
    """Split the index as if every image could be decoded; return the summary."""
    folder.mkdir()
    names = pd.read_parquet(index / INDEX_FILE, columns=["image"])
    names.assign(crc32=0, status=OK).to_parquet(folder / IMAGES_FILE)
    return split_images(config.split, index, folder, folder, table=table)


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


def reading(config: PipelineConfig, steps: list[Step], index: Path) -> Reading:
    """Return what is to be read for the stages that need pixels and are not cached.

    Args:
        config: Settings of the run.
        steps: What would become of each stage.
        index: Folder of the index, made or planned.
    """
    sizes = pd.read_parquet(index / LISTING_FILE, columns=["bytes"])["bytes"]
    needing = [step for step in steps if step.stage == "images" or step.reads_pixels]
    if all(step.state == CACHED for step in needing):
        sizes = sizes[:0]
    elif config.images.cache:
        cache = PixelCache(config.images, index, len(sizes), Path(config.store.scratch))
        sizes = sizes[is_unfinished(cache.records())]
    return Reading(len(sizes), int(sizes.sum()), not config.images.cache)


def training(config: PipelineConfig) -> Training:
    """Return what training takes on this machine, or for each worker of a Ray cluster.

    Memory is that of the weights, their gradients and Adam's two moments; of what a step saves for
    its backward pass, per image, and 1.5 times as much for gradients; and of the process.

    Raises:
        ValueError: The machine has no such device.
    """
    runtime, vae = config.runtime, config.vae
    device = resolve_device(runtime.device_here)
    precision = resolve_precision(vae.precision, device)
    model = initial_vae(vae, config.images.size, device)
    if runtime.ray_address and vae.batch_size == "auto":
        vae = vae.model_copy(update={"batch_size": 1})  # only its workers know what they have
    batch_size = resolve_config(vae, config.images.size, device, precision).batch_size
    weights = sum(weight.nbytes for weight in model.parameters())
    step = int(STEP_FACTOR * batch_size * saved_bytes(model, make_objective(vae), precision))
    process = PROCESS_BYTES if device.type == "cpu" else 0
    return Training(
        device=f"{runtime.device}, of a Ray cluster" if runtime.ray_address else str(device),
        precision=vae.precision if runtime.ray_address else precision,
        batch_size=batch_size,
        bytes=STATES_PER_WEIGHT * weights + step + process,
        bytes_there=None if runtime.ray_address else memory_bytes(device),
        checkpoint_bytes=CHECKPOINT_WEIGHTS * weights,
    )
