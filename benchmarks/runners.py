"""What is timed, each in a process of its own, taking turns: no one changes another's settings."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from benchmarks.films import Films
from benchmarks.notebook import NotebookTraining
from benchmarks.turns import take_turns
from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.progress import Progress
from cxrmodel.training.batches import in_batches
from cxrmodel.training.devices import keep_freed_memory, resolve_precision
from cxrmodel.training.encoding import Coder, load_vae
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae import loop
from cxrmodel.training.vae.fit import fit_vae

CPU = torch.device("cpu")
MATRIX_SIDE = 4096
MATRIX_PRODUCTS = 4


class Stop(BaseException):
    """Ends a training that is being timed."""


def notebook_training(turns: Connection, films: Films, num_images: int) -> None:
    """Seconds an image of the notebook's training."""
    training, paths = NotebookTraining(), films.paths

    def work() -> float:
        start = time.perf_counter()
        training.train(paths[:num_images])
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def notebook_encoding(turns: Connection, films: Films, num_images: int) -> None:
    """Seconds an image of the notebook's encoding."""
    training, paths = NotebookTraining(), films.paths

    def work() -> float:
        start = time.perf_counter()
        training.encode(paths[:num_images])
        return (time.perf_counter() - start) / num_images

    take_turns(turns, work)


def product_training(
    turns: Connection, films: Films, config: VAEConfig, steps_a_turn: int, directory: Path
) -> None:
    """Seconds an image of the steps of `fit_vae`, paused between turns in its progress report.

    What an epoch ends with, validation and a checkpoint, is not of a step.
    """
    loop.REPORT_EVERY_S = 0.0  # after every step, and while validating
    steps: list[float] = []
    clock = {"at": 0.0, "step": 0}
    directory.mkdir()

    def report(progress: Progress) -> None:
        if progress.done > clock["step"]:
            steps.append(time.perf_counter() - clock["at"])
        if len(steps) >= steps_a_turn:
            turns.send(sum(steps) / (steps_a_turn * int(config.batch_size)))
            steps.clear()
            if not turns.recv():
                raise Stop
        clock.update(at=time.perf_counter(), step=progress.done)

    try:
        fit_vae(
            config, films.open(), films.split, directory, checkpoints=directory, report=report,
            device="cpu",
        )  # fmt: skip
    except Stop:
        shutil.rmtree(directory)


def product_encoding(
    turns: Connection, films: Films, config: LatentsConfig, vae: Path, num_images: int
) -> None:
    """Seconds an image from the memory map to mu, as the notebook goes from the file to mu."""
    pixels = films.open()
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
    turns: Connection, films: Films, config: LatentsConfig, vae: Path, directory: Path
) -> None:
    """Seconds an image of the whole stage: it also decodes, scores and writes."""
    pixels, parts = films.open(), directory / "parts"

    def work() -> float:
        start = time.perf_counter()
        summary = extract_latents(
            config, vae, pixels, films.split, directory, parts=parts, device="cpu"
        )
        shutil.rmtree(parts)
        return (time.perf_counter() - start) / float(summary["num_images"])

    take_turns(turns, work)


def matrix_products(turns: Connection) -> None:
    """Seconds a floating-point operation of a large bfloat16 matrix product."""
    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).bfloat16()

    def work() -> float:
        start = time.perf_counter()
        for _ in range(MATRIX_PRODUCTS):
            matrix @ matrix
        return (time.perf_counter() - start) / (MATRIX_PRODUCTS * 2 * MATRIX_SIDE**3)

    take_turns(turns, work)
