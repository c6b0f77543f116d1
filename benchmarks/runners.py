"""What is timed: runners that take turns, each in a process of its own.

In a process of its own no runner changes another's settings.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.rivals import MonaiTraining, NotebookTraining, load
from benchmarks.sample import Sample
from cxrmodel.config import ImagesConfig, LatentsConfig, VAEConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.data.images.decode import decode_image
from cxrmodel.inference.bundle import Bundle
from cxrmodel.inference.predictor import CLASSIFIER_PREFIX, MEAN, PRECISION, VAE_PREFIX, Model
from cxrmodel.machine import usable_cores
from cxrmodel.models.classifier import Classifier
from cxrmodel.progress import Progress
from cxrmodel.storage.layout import CONFIG_FILE
from cxrmodel.training import speed
from cxrmodel.training.devices import keep_freed_memory, resolve_precision
from cxrmodel.training.encoding import Coder, load_vae
from cxrmodel.training.image_batches import in_batches
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae

CPU = torch.device("cpu")
MATRIX_SIDE = 4096
MATRIX_PRODUCTS = 4

spawn = multiprocessing.get_context("spawn")


def in_turns(processes: dict[str, tuple[Any, ...]], num_rounds: int) -> dict[str, list[float]]:
    """Let processes work one at a time, round after round; the first round warms up.

    Args:
        processes: By name, a function and its arguments after the connection it answers on.
        num_rounds: Rounds after the first.

    Returns:
        What each answered, in seconds per unit, round by round.
    """
    ends: dict[str, Connection] = {}
    workers = []
    for name, (runner, *arguments) in processes.items():
        ends[name], theirs = spawn.Pipe()
        workers.append(spawn.Process(target=runner, args=(theirs, *arguments), daemon=True))
        workers[-1].start()
        theirs.close()
        ends[name].recv()
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(num_rounds + 1):
        for name, end in ends.items():
            end.send(True)
            seconds[name].append(end.recv())
    for end, worker in zip(ends.values(), workers, strict=True):
        end.send(False)
        worker.join()
    return {name: values[1:] for name, values in seconds.items()}


def take_turns(turns: Connection, work: Callable[[], float]) -> None:
    """Do a turn's work whenever told to, and answer with its seconds per unit."""
    turns.send(None)  # ready
    while turns.recv():
        turns.send(work())


def answer_of(runner: Callable[..., None], *arguments: Any) -> Any:
    """Return what a function answers in a process of its own."""
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=runner, args=(theirs, *arguments))
    process.start()
    theirs.close()
    answer = ours.recv()
    process.join()
    return answer


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # rusage begins with the memory of the process that started this one
        kib = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib.split()[1]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median of the ratios of what ran next to each other."""
    return round(statistics.median(s / f for s, f in zip(slow, fast, strict=True)), 2)


def median_ms(seconds: list[float]) -> float:
    """Return a median in milliseconds."""
    return round(1e3 * statistics.median(seconds), 3)


class Stop(BaseException):
    """Ends a training that is being timed."""


def notebook_training(turns: Connection, sample: Sample, num_images: int) -> None:
    """Seconds per image of the notebook's training."""
    training, paths = NotebookTraining(), sample.paths

    def work() -> float:
        start = time.perf_counter()
        training.train(paths[:num_images])
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def notebook_encoding(turns: Connection, sample: Sample, num_images: int) -> None:
    """Seconds per image of the notebook's encoding."""
    training, paths = NotebookTraining(), sample.paths

    def work() -> float:
        start = time.perf_counter()
        training.encode(paths[:num_images])
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def monai_training(
    turns: Connection, sample: Sample, num_images: int, batch_size: int, precision: str
) -> None:
    """Seconds per image of training MONAI's network, its images decoded before."""
    training = MonaiTraining("cpu", precision)
    images = torch.cat([load(path) for path in sample.paths[:num_images]])

    def work() -> float:
        start = time.perf_counter()
        for batch in images.split(batch_size):
            training.train(batch)
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def product_training(
    turns: Connection, sample: Sample, config: VAEConfig, steps_per_turn: int, directory: Path
) -> None:
    """Seconds per image of the steps of `fit_vae`, paused between turns in its progress report.

    The validation and the checkpoint at the end of an epoch are not part of a step.
    """
    speed.REPORT_EVERY_S = 0.0  # after every step, and while validating
    steps: list[float] = []
    clock = {"at": 0.0, "step": 0}
    directory.mkdir()

    def report(progress: Progress) -> None:
        if progress.done > clock["step"]:
            steps.append(time.perf_counter() - clock["at"])
        if len(steps) >= steps_per_turn:
            turns.send(sum(steps) / (steps_per_turn * int(config.batch_size)))
            steps.clear()
            if not turns.recv():
                raise Stop
        clock.update(at=time.perf_counter(), step=progress.done)

    try:
        fit_vae(
            config, sample.open(), sample.split, directory, checkpoints=directory, report=report,
            device="cpu",
        )  # fmt: skip
    except Stop:
        shutil.rmtree(directory)


def product_encoding(
    turns: Connection, sample: Sample, config: LatentsConfig, vae: Path, num_images: int
) -> None:
    """Seconds per image from the memory map to mu, as the notebook goes from the file to mu."""
    pixels = sample.open()
    coder = Coder(load_vae(vae), CPU, resolve_precision(config.precision, CPU))
    batches = list(in_batches(np.arange(num_images), config.batch_size))

    def work() -> float:
        start = time.perf_counter()
        with closing(iterate_batches(pixels, batches)) as stream:
            for _, images in stream:
                coder.encode(coder.load(images))[0].numpy()
        return (time.perf_counter() - start) / num_images

    with keep_freed_memory(CPU):
        take_turns(turns, work)


def product_extraction(
    turns: Connection, sample: Sample, config: LatentsConfig, vae: Path, directory: Path
) -> None:
    """Seconds per image of the whole stage: it also decodes, scores and writes."""
    pixels, parts = sample.open(), directory / "parts"

    def work() -> float:
        start = time.perf_counter()
        summary = extract_latents(
            config, vae, pixels, sample.split, directory, parts=parts, device="cpu"
        )
        shutil.rmtree(parts)
        return (time.perf_counter() - start) / float(summary["num_images"])

    take_turns(turns, work)


def untrained_model(vae: Path, precision: str, device: str = "cpu") -> Model:
    """Return a model whose classifier is untrained, around the autoencoder of a vae stage."""
    network = load_vae(vae)
    latent_dim = network.latent_dim
    classifier = Classifier(latent_dim, len(PATHOLOGIES)).state_dict()
    description = {
        "architecture": {
            "vae": json.loads((vae / CONFIG_FILE).read_text())["architecture"],
            "classifier": {"latent_dim": latent_dim, "num_labels": len(PATHOLOGIES)},
        },
        "images": {"size": network.image_size, "fit": "crop", "max_megapixels": 64.0},
        "precision": precision,
        "labels": list(PATHOLOGIES),
        "thresholds": dict.fromkeys(PATHOLOGIES, 0.5),
        "limits": {"l1": 1.0, "distance": 1e6},
    }
    tensors = {
        **{f"{VAE_PREFIX}{name}": tensor for name, tensor in network.state_dict().items()},
        **{f"{CLASSIFIER_PREFIX}{name}": tensor for name, tensor in classifier.items()},
        MEAN: torch.zeros(latent_dim, dtype=torch.float64),
        PRECISION: torch.eye(latent_dim, dtype=torch.float64),
    }
    return Model(Bundle("untrained", "", description, tensors, pd.DataFrame()), device)


def product_prediction(
    turns: Connection, sample: Sample, config: LatentsConfig, vae: Path, num_images: int
) -> None:
    """Seconds per decoded image that a model scores, as `predict` does."""
    model = untrained_model(vae, resolve_precision(config.precision, CPU))
    pixels = sample.open()
    images = pixels.read(np.arange(num_images))

    def work() -> float:
        start = time.perf_counter()
        model.score(images, batch_size=config.batch_size)
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def product_reading(turns: Connection, sample: Sample, vae: Path) -> None:
    """Seconds per file from its path to pixels that a model takes, on all cores."""
    model = untrained_model(vae, "float32")

    def work() -> float:
        start = time.perf_counter()
        done = sum(len(batch) for batch in model.read(sample.paths))
        return (time.perf_counter() - start) / done

    take_turns(turns, work)


def decoding(turns: Connection, sample: Sample) -> None:
    """Seconds per file to decode it from memory, on all cores."""
    config, contents = ImagesConfig(), [path.read_bytes() for path in sample.paths]

    def work() -> float:
        with ThreadPoolExecutor(usable_cores()) as pool:
            start = time.perf_counter()
            done = len([pool.submit(decode_image, content, config) for content in contents])
            pool.shutdown()
            return (time.perf_counter() - start) / done

    take_turns(turns, work)


def matrix_products(turns: Connection) -> None:
    """Seconds per floating-point operation of a large bfloat16 matrix product."""
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).bfloat16()

    def work() -> float:
        start = time.perf_counter()
        for _ in range(MATRIX_PRODUCTS):
            matrix @ matrix
        return (time.perf_counter() - start) / (MATRIX_PRODUCTS * 2 * MATRIX_SIDE**3)

    take_turns(turns, work)
