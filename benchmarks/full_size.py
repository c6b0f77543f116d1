"""How long each stage takes for 112,120 images, and how much memory the run.

The images are of 64 px, so that it takes minutes: what grows with their number is at its real size,
what grows with their pixels is not.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.data_plane import SIZES, make_root
from benchmarks.orchestration import stage_seconds
from benchmarks.runners import answer_of
from cxrmodel.phantom import write_phantoms

SIZE_PX, NUM_IMAGES, NUM_DRAWN = 64, SIZES[-1], 200
GRAIN = 6.0  # grey levels
BOX_LIST = "BBox_List_2017.csv"
PROJECT = Path(__file__).parents[1]
SETTINGS = ("--config=configs/fast.yaml", f"--images.size={SIZE_PX}", "--vae.epochs=1",
            "--vae.batch_size=64", "--latents.batch_size=64", "--runtime.device=cpu")  # fmt: skip


def measure_full_size(
    work: Path, csv_path: Path | None = None, num_images: int = NUM_IMAGES
) -> dict[str, dict[str, float]]:
    """Run the pipeline once.

    Args:
        work: Empty folder; about a gibibyte is written there.
        csv_path: NIH's `Data_Entry_2017_v2020.csv`; where its list of boxes lies beside it, error
            maps are compared with these. Without it a table with three findings is made up.
        num_images: How many images.

    Returns:
        By number of images, the seconds of each stage, and `peak_gib`, memory of the run.
    """
    root = make_root(work / "dataset", num_images, csv_path)
    if csv_path and csv_path.with_name(BOX_LIST).exists():
        shutil.copy(csv_path.with_name(BOX_LIST), root)
    _fill(sorted(root.glob("*/images/*.png")), _draw(work / "drawn"))
    taken: dict[str, float] = answer_of(_run, root, work)
    return {f"{num_images:,}": taken}


def _draw(folder: Path) -> NDArray[np.float32]:
    """Draw a few phantoms, (N, S, S)."""
    write_phantoms(folder, NUM_DRAWN, size_px=SIZE_PX)
    paths = sorted((folder / "images").iterdir())
    return np.stack([np.asarray(Image.open(path).convert("L"), np.float32) for path in paths])


def _fill(paths: list[Path], drawn: NDArray[np.float32]) -> None:
    """Write images, each the mean of two phantoms with grain of its own: no two are alike."""

    def write(numbered: tuple[int, Path]) -> None:
        number, path = numbered
        rng = np.random.default_rng(number)
        one, two = drawn[rng.choice(len(drawn), 2, replace=False)]
        grain = GRAIN * rng.standard_normal(one.shape, np.float32)
        pixels = ((one + two) / 2 + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(write, enumerate(paths)):
            pass


def _run(answer: Connection, root: Path, work: Path) -> None:
    places = (f"--data.root={root}", f"--store.root={work}/store", f"--store.scratch={work}/s")
    environment = {**os.environ, "PREFECT_HOME": str(work / "prefect"), "DO_NOT_TRACK": "1"}
    subprocess.run(
        [sys.executable, "flows/main.py", *SETTINGS, *places],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds = stage_seconds(work / "store")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of KiB
    found = {f"{stage}_s": round(taken, 1) for stage, taken in seconds.items()}
    answer.send({**found, "peak_gib": round(peak, 2)})
