"""Measure training on a GPU: `python -m benchmarks.gpu [--data.root FOLDER] [--out FOLDER]`.

Adds its tables to `results.json` and `README.md`. Without a GPU it takes the same steps with small
images on the CPU, to show that it works, and adds nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.page import RESULTS, write_page
from benchmarks.rivals import MonaiTraining, NotebookTraining, load
from benchmarks.runners import untrained_model
from benchmarks.sample import FLOP_PER_IMAGE, RepeatedPixels, Sample, fast_config, prepare
from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.models import convolutions
from cxrmodel.progress import Progress
from cxrmodel.training import speed
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae import fit
from cxrmodel.training.vae.fit import fit_vae

WARM_UP_S = 1.0
MATRIX_PRODUCTS = 50
PROFILED_STEPS, PROFILED_BATCH = 5, 4
PROFILE_ROWS = 25


@dataclass(frozen=True)
class Plan:
    """What is measured, by the device.

    Attributes:
        device: Where.
        size: Side of the images in pixels; the notebook and MONAI are measured at 1024 alone.
        batches: Batch sizes in bfloat16.
        float32_batches: Batch sizes in float32.
        options_batch: Batch size at which the options are switched.
        measured_s: Seconds per figure, after a warm-up.
        num_images: Images that an epoch seems to have: it must not end while it is measured.
        matrix_side: Rows of the square matrices whose product is timed.
    """

    device: str
    size: int
    batches: tuple[int, ...]
    float32_batches: tuple[int, ...]
    options_batch: int
    measured_s: float
    num_images: int
    matrix_side: int


ON_GPU = Plan("cuda", 1024, (1, 2, 4, 8, 16, 32, 64), (1, 8, 32), 32, 4.0, 100_000, 8192)
ON_CPU = Plan("cpu", 64, (1, 4), (1,), 4, 0.5, 20_000, 512)


class Stop(BaseException):
    """Ends a training that is being timed."""


def main() -> None:
    """Measure, print, and write what was measured on a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--data.root", dest="root", help="local data set; else synthetic images")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and profile.txt as well")
    arguments = parser.parse_args()
    plan = ON_GPU if torch.cuda.is_available() else ON_CPU
    with tempfile.TemporaryDirectory() as folder:
        measured, table = measure_all(plan, arguments.root, Path(folder))
    text = json.dumps(measured, indent=1) + "\n"
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "gpu.json").write_text(text, encoding="utf-8")
        (arguments.out / "profile.txt").write_text(table, encoding="utf-8")
    if plan is not ON_GPU:
        print("PyTorch sees no GPU here: the page is left as it is.")
        return
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    results.setdefault("gpus", {})[measured["machine"]["device"]] = measured
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    write_page(results)


def measure_all(plan: Plan, root: str | None, folder: Path) -> tuple[dict[str, Any], str]:
    """Return every figure, and the profile of the best configuration as a table."""
    sample = prepare(root, folder, plan.size, num_images=48 if plan is ON_GPU else 8)
    pixels = RepeatedPixels(sample.open(), plan.num_images)
    bench = Bench(plan, pixels, pixels.write_split(folder / "long"), folder)
    rate = matrix_rate(plan)
    measured: dict[str, Any] = {"machine": describe(plan, rate, root)}

    def keep(section: str, name: str, figures: dict[str, Any]) -> None:
        measured.setdefault(section, {})[name] = figures
        print(f"{section}, {name}: {json.dumps(figures)}", flush=True)

    keep("beside", "notebook, batch 1, float32", notebook(plan, sample))
    if plan.size == ON_GPU.size and importlib.util.find_spec("monai"):
        for precision in ("float32", "bfloat16"):
            for size in (1, 8, 32):
                keep("beside", f"MONAI, batch {size}, {precision}", monai(sample, size, precision))
    for size in plan.batches:
        keep("bfloat16", str(size), bench.training(rate, size))
    for size in plan.float32_batches:
        keep("float32", str(size), bench.training(rate, size, precision="float32"))
    batch = plan.options_batch
    keep("options", "as it is", bench.training(rate, batch))
    with any_kernels():
        keep("options", "kernels that may differ from run to run", bench.training(rate, batch))
    with patch.object(convolutions, "is_for_pixel_blocks", lambda *_: False):
        keep("options", "cuDNN's kernels for one channel", bench.training(rate, batch))
    figures = bench.training(rate, batch, gradient_checkpointing=True)
    keep("options", "vae.gradient_checkpointing", figures)
    keep("latents", f"batch {batch}, the whole stage", bench.extraction(batch))
    keep("latents", f"batch {batch}, `predict` on decoded images", bench.prediction(batch))
    best = max(measured["bfloat16"], key=lambda n: measured["bfloat16"][n]["images_per_s"])
    measured["ratios"] = ratios(measured, best)
    small = PROFILED_BATCH if plan is ON_GPU else plan.batches[0]
    tables = [f"batch {size}\n{bench.profile(size)}" for size in (int(best), small)]
    return measured, "\n".join(tables)


def describe(plan: Plan, rate: float, root: str | None) -> dict[str, Any]:
    """Say what the figures were measured on."""
    is_cuda = plan.device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if is_cuda else "CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "size_px": plan.size,
        "images": "of a data set" if root else "synthetic",
        "matrix_tflop_per_s": round(rate / 1e12, 1),
    }


def matrix_rate(plan: Plan) -> float:
    """Return the measured rate of bfloat16 matrix products, in FLOP/s."""
    side = plan.matrix_side
    matrix = torch.randn(side, side, device=plan.device, dtype=torch.bfloat16)
    for _ in range(3):
        matrix @ matrix
    synchronize(plan.device)
    start = time.perf_counter()
    for _ in range(MATRIX_PRODUCTS):
        matrix @ matrix
    synchronize(plan.device)
    return MATRIX_PRODUCTS * 2 * side**3 / (time.perf_counter() - start)


def synchronize(device: str) -> None:
    """Wait until a device has done what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def any_kernels() -> Iterator[None]:
    """Let cuDNN take whichever kernel is fastest, also one that does not repeat itself."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with patch.object(fit, "deterministic_kernels", lambda _: nullcontext()):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def notebook(plan: Plan, sample: Sample) -> dict[str, float]:
    """Time the notebook's loop on this device, decoding included."""
    if plan.size != ON_GPU.size:
        return {}
    training = NotebookTraining(plan.device)
    return repeated(plan.measured_s, lambda: training.train(sample.paths[:16]), 16)


def monai(sample: Sample, batch_size: int, precision: str) -> dict[str, float]:
    """Time MONAI's network on a GPU, its images in memory already."""
    training = MonaiTraining("cuda", precision)
    images = torch.cat([load(sample.paths[row % len(sample.paths)]) for row in range(batch_size)])

    def step() -> None:
        training.train(images)
        torch.cuda.synchronize()

    return repeated(ON_GPU.measured_s / 2, step, batch_size)


def repeated(seconds: float, work: Callable[[], None], num_images: int) -> dict[str, float]:
    """Return the images per second of some work, after once for warming up."""
    work()
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return {"images_per_s": round(num_images / statistics.median(times), 1)}


def ratios(measured: dict[str, Any], best: str) -> dict[str, float]:
    """Compare the best batch with the others of the same run."""
    ours = measured["bfloat16"][best]["images_per_s"]
    others = {
        name: figures["images_per_s"] for name, figures in measured["beside"].items() if figures
    }
    return {f"over {name}": round(ours / speed, 2) for name, speed in others.items()}


@dataclass(frozen=True)
class Bench:
    """Trainings of the product, each for some seconds."""

    plan: Plan
    pixels: RepeatedPixels
    split: Path
    folder: Path

    def training(self, rate: float, batch_size: int, **settings: Any) -> dict[str, Any]:
        """Return images per second, share of the matrix rate, loader wait and peak memory."""
        told: list[tuple[float, Progress]] = []

        def report(progress: Progress) -> None:
            told.append((time.perf_counter(), progress))
            late = [at for at, _ in told if at - told[0][0] >= WARM_UP_S]
            if len(late) > 1 and late[-1] - told[0][0] > WARM_UP_S + self.plan.measured_s:
                raise Stop

        if self.plan.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._train(batch_size, report, settings)
        told = [one for one in told if one[0] - told[0][0] >= WARM_UP_S]
        (began, first), (ended, last) = told[0], told[-1]
        images_per_s = (last.done - first.done) * batch_size / (ended - began)
        waits = [progress.metrics.get("loader_wait", 0.0) for _, progress in told[1:]]
        figures = {
            "images_per_s": round(images_per_s, 1),
            "share_of_matrix_rate": round(images_per_s * self._flop_per_image() / rate, 3),
            "loader_wait": round(sum(waits) / len(waits), 4),
        }
        if self.plan.device == "cuda":
            figures["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            torch.cuda.empty_cache()
        return figures

    def profile(self, batch_size: int) -> str:
        """Return where the time of a few steps goes, as a table of kernels."""
        cuda = [ProfilerActivity.CUDA] if self.plan.device == "cuda" else []
        profiler = profile(activities=[ProfilerActivity.CPU, *cuda])
        with ExitStack() as stack:
            warm = 3 * PROFILED_STEPS

            def report(progress: Progress) -> None:
                if progress.done == warm:
                    stack.enter_context(profiler)
                if progress.done >= warm + PROFILED_STEPS:
                    stack.close()  # before the checkpoint that an interrupted training leaves
                    raise Stop

            self._train(batch_size, report, {}, report_every_s=0.0)
        key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        return str(profiler.key_averages().table(sort_by=key, row_limit=PROFILE_ROWS))

    def extraction(self, batch_size: int) -> dict[str, float]:
        """Return the images per second of the latents stage, after its first second."""
        network, directory = self.folder / "vae", self.folder / "latents"
        network.mkdir()
        directory.mkdir()
        short = RepeatedPixels(self.pixels, batch_size)
        config = fast_config()[0].model_copy(update={"epochs": 1, "batch_size": batch_size})
        fit_vae(
            config, short, short.write_split(self.folder / "short"), network,
            checkpoints=self.folder / "c", device=self.plan.device,
        )  # fmt: skip
        told: list[tuple[float, int]] = []

        def report(progress: Progress) -> None:
            told.append((time.perf_counter(), progress.done))
            if told[-1][0] - told[0][0] > self.plan.measured_s:
                raise Stop

        with suppress(Stop), patch.object(speed, "REPORT_EVERY_S", WARM_UP_S / 4):
            extract_latents(
                LatentsConfig(batch_size=batch_size, precision="auto"), network, self.pixels,
                self.split, directory, parts=self.folder / "parts", device=self.plan.device,
                report=report,
            )  # fmt: skip
        (began, first), (ended, last) = told[0], told[-1]
        return {"images_per_s": round((last - first) / (ended - began), 1)}

    def prediction(self, batch_size: int) -> dict[str, float]:
        """Return the images per second of a model around the network of `extraction`."""
        model = untrained_model(self.folder / "vae", "bfloat16", self.plan.device)
        images = self.pixels.read(np.arange(4 * batch_size))
        work = partial(model.score, images, batch_size=batch_size)
        return repeated(self.plan.measured_s / 2, work, len(images))

    def _train(
        self,
        batch_size: int,
        report: Callable[[Progress], None],
        settings: dict[str, Any],
        report_every_s: float = 0.25,
    ) -> None:
        config = VAEConfig(
            **fast_config()[0].model_dump()
            | {"batch_size": batch_size, "epochs": 1, "checkpoint_every_s": 1e6}
            | settings
        )
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            directory = Path(work)
            with suppress(Stop), patch.object(speed, "REPORT_EVERY_S", report_every_s):
                fit_vae(
                    config, self.pixels, self.split, directory, checkpoints=directory,
                    device=self.plan.device, report=report,
                )  # fmt: skip

    def _flop_per_image(self) -> float:
        return FLOP_PER_IMAGE * (self.plan.size / ON_GPU.size) ** 2


if __name__ == "__main__":
    main()
