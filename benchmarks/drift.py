"""How often `monitor` calls drift what is none, and how often it finds what is one.

A model is trained on some patients; the others are scored once as they are and once altered. Each
simulated window, and the reference that it is compared with, are other patients of these.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from benchmarks.runners import answer_of, peak_bytes
from cxrmodel.inference.gate import Gate
from cxrmodel.inference.image_files import OK
from cxrmodel.inference.predictor import Model, load
from cxrmodel.monitoring.drift import find_drift
from cxrmodel.monitoring.quantities import GATE_REASONS, Quantity, quantities_of
from cxrmodel.phantom import write_phantoms
from cxrmodel.storage.layout import INDEX_FILE

NUM_PHANTOMS, PHANTOM_PX = 6000, 64
NUM_WINDOWS, WINDOW, REFERENCE = 200, 300, 1000
BIG_WINDOW, BIG_REFERENCE = 20_000, 11_000
AP_POINTS, GAMMA, BLUR_PX, INVERTED_SHARE = 0.2, 1.3, 0.7, 0.05
TRAIN_SHARE, TRAIN_AND_VAL_SHARE = 0.45, 0.60
PARTS = ["image", "split"]
MAX_SHARE = 0.95
PREVALENCE = "prevalence doubled"
PEOPLE = ("view", "sex", "age")
PROJECT = Path(__file__).parents[1]

Draw = Callable[[np.random.Generator, pd.Index], pd.DataFrame]


@dataclass(frozen=True)
class Pool:
    """Images of patients that the model was not trained on, scored in several ways.

    Attributes:
        tables: As they are (`clean`) and altered, with the same rows.
        quantities: What is compared.
        window: Images of a window.
        reference: Images of a reference.
    """

    tables: dict[str, pd.DataFrame]
    quantities: tuple[Quantity, ...]
    window: int = WINDOW
    reference: int = REFERENCE


def measure_drift(work: Path) -> dict[str, dict[str, float]]:
    """Train on phantoms, and simulate windows of others.

    Returns:
        The share of windows with an alarm, by what was done to them.
    """
    folder = work / "phantoms"
    write_phantoms(folder, NUM_PHANTOMS, size_px=PHANTOM_PX)
    bundle, index = train(folder, work)
    pool = score_pool(load(bundle, device="cpu"), folder, index)
    without = tuple(each for each in pool.quantities if each.name != "sharpness")
    blind = replace(pool, quantities=without)
    return {
        f"of {NUM_WINDOWS}": {
            **simulate(pool),
            "blurred, without sharpness": simulate(blind, only=("blurred",))["blurred"],
        },
    }


def train(folder: Path, work: Path) -> tuple[Path, pd.DataFrame]:
    """Run the pipeline; return the bundle, and the index of the images outside train."""
    store, parts = work / "store", work / "parts.csv"
    divide(folder).to_csv(parts, index=False)
    flags = ["--config", "configs/tuned.yaml", "--images.size", str(PHANTOM_PX)]
    flags += ["--vae.epochs", "80", "--vae.batch_size", "16", "--vae.lr", "3e-4"]
    flags += ["--split.method", "file", "--split.file", str(parts)]
    flags += ["--data.root", str(folder), "--store.root", str(store)]
    flags += ["--store.scratch", str(work / "scratch")]
    subprocess.run(
        [sys.executable, "flows/main.py", *flags],
        check=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    return _made(store)


def divide(folder: Path) -> pd.DataFrame:
    """Deal the patients of NIH's table into train, val and test, so that many are left to draw."""
    with next(folder.glob("Data_Entry*.csv")).open(encoding="utf-8", newline="") as stream:
        rows = [(row["Image Index"], int(row["Patient ID"])) for row in csv.DictReader(stream)]
    patients = np.random.default_rng(0).permutation(sorted({patient for _, patient in rows}))
    ends = [int(end * len(patients)) for end in (TRAIN_SHARE, TRAIN_AND_VAL_SHARE)]
    part = {
        patient: name
        for name, group in zip(("train", "val", "test"), np.split(patients, ends), strict=True)
        for patient in group.tolist()
    }
    return pd.DataFrame([(image, part[patient]) for image, patient in rows], columns=PARTS)


def _made(store: Path) -> tuple[Path, pd.DataFrame]:
    bundle, folder = (next((store / stage).iterdir()) for stage in ("bundle", "index"))
    split = pd.read_parquet(next((store / "split").iterdir()) / "split.parquet")
    index = pd.read_parquet(folder / INDEX_FILE).merge(split, on="image")
    return bundle, index[index["split"] != "train"].reset_index(drop=True)


def score_pool(model: Model, root: Path, index: pd.DataFrame) -> Pool:
    """Score the images as they are and altered."""
    read = model.read_files([str(root / uri) for uri in index["uri"]], gate=False)
    pixels = np.stack([image.pixels for batch in read for image in batch])
    altered = {
        "clean": pixels,
        f"gamma {GAMMA}": np.rint(255 * (pixels / 255.0) ** GAMMA).astype(np.uint8),
        "blurred": _blur(pixels),
        "inverted": 255 - pixels,
    }
    about = index[["image", *PEOPLE]].assign(
        patient=pd.factorize(index["patient_id"])[0],
        source="",
        abnormal=index["any_abnormal"].astype(np.float64),
    )
    tables = {name: about.join(_score(model, changed)) for name, changed in altered.items()}
    return Pool(tables, quantities_of(model.bundle))


def _score(model: Model, pixels: np.ndarray) -> pd.DataFrame:
    gate = Gate.of(model.bundle.tensors)
    status = [reason or OK for reason in gate.check(pixels)] if gate else [OK] * len(pixels)
    scores = model.score(pixels, batch_size=32)
    numbers = scores.filter(regex=r"^(mu_|p_|l1|sharpness|distance|unusual)").astype(np.float64)
    is_refused = np.isin(status, GATE_REASONS)
    return numbers.mask(is_refused[:, None] & np.ones(numbers.shape, bool)).assign(status=status)


def _blur(pixels: np.ndarray) -> np.ndarray:
    """Return (B, S, S) images seen through a Gaussian of `BLUR_PX`."""
    at = torch.arange(-3, 4, dtype=torch.float32)
    line = torch.exp(-(at**2) / (2 * BLUR_PX**2))
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None]
    batch = functional.pad(torch.from_numpy(pixels).float()[:, None], (3, 3, 3, 3), "replicate")
    return functional.conv2d(batch, kernel)[:, 0].round().to(torch.uint8).numpy()


def scenarios(pool: Pool) -> dict[str, Draw]:
    """Return ways to draw a window from the rows of some patients, in random order."""
    clean = pool.tables["clean"]

    def whole(name: str) -> Draw:
        return lambda _, rows: pool.tables[name].loc[rows[: pool.window]]

    def more(column: pd.Series, share: Callable[[float], float]) -> Draw:
        """Draw so that a share rises, from patients as they come."""
        has = column.to_numpy(bool)
        now = float(has.mean())
        wanted = min(MAX_SHARE, share(now))
        kept = now * (1 - wanted) / ((1 - now) * wanted)

        def draw(rng: np.random.Generator, rows: pd.Index) -> pd.DataFrame:
            stays = has[rows] | (rng.random(len(rows)) < kept)
            return clean.loc[rows[stays][: pool.window]]

        return draw

    def inverted(rng: np.random.Generator, rows: pd.Index) -> pd.DataFrame:
        chosen = rows[: pool.window]
        swapped = rng.random(len(chosen)) < INVERTED_SHARE
        parts = [clean.loc[chosen[~swapped]], pool.tables["inverted"].loc[chosen[swapped]]]
        return pd.concat(parts)

    return {
        "clean": whole("clean"),
        "AP +20 points": more(clean["view"] == "AP", lambda now: now + AP_POINTS),
        f"gamma {GAMMA}": whole(f"gamma {GAMMA}"),
        "blurred": whole("blurred"),
        "5 % inverted": inverted,
        PREVALENCE: more(clean["abnormal"] == 1, lambda now: 2 * now),
    }


def simulate(
    pool: Pool,
    num_windows: int = NUM_WINDOWS,
    *,
    only: tuple[str, ...] = (),
) -> dict[str, float]:
    """Return the share of windows with an alarm, by scenario.

    Args:
        pool: What windows are drawn from.
        num_windows: Of each scenario.
        only: These scenarios alone; all by default.
    """
    found = {}
    for name, draw in scenarios(pool).items():
        if not only or name in only:
            alarms = [
                find_drift(*_draw(pool, draw, seed), pool.quantities).is_found
                for seed in range(num_windows)
            ]
            found[name] = round(float(np.mean(alarms)), 3)
    return found


def _draw(pool: Pool, draw: Draw, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a reference and a window of different patients."""
    rng = np.random.default_rng(seed)
    clean = pool.tables["clean"]
    order = rng.permutation(int(clean["patient"].max()) + 1)
    rows = clean.index[np.argsort(np.argsort(order)[clean["patient"]], kind="stable")]
    ends = np.flatnonzero(np.diff(clean.loc[rows, "patient"].to_numpy()) != 0) + 1
    end = int(ends[np.searchsorted(ends, pool.reference)])
    return clean.loc[rows[:end]], draw(rng, rows[end:])


def measure_big_window() -> dict[str, dict[str, float]]:
    """Compare a window of 20,000 images with a reference of 11,000, in a process of its own."""
    return {f"{BIG_WINDOW:,} images": answer_of(_big_window)}


def _big_window(answer: Connection) -> None:
    rng = np.random.default_rng(0)
    names = [f"mu_{dim:02d}" for dim in range(64)] + [f"p_{label:02d}" for label in range(14)]
    quantities = (
        *(Quantity(name, "latents") for name in (*names, "l1", "distance")),
        *(
            Quantity(name, "people", is_share=name != "age")
            for name in ("AP view", "female", "age")
        ),
        *(Quantity(name, "refusals", is_share=True) for name in GATE_REASONS),
    )
    tables = []
    for size in (BIG_REFERENCE, BIG_WINDOW):
        numbers = rng.normal(size=(size, len(names) + 2)).astype(np.float32)
        about = {
            "image": [f"{row}.png" for row in range(size)],
            "patient": rng.integers(size // 3, size=size),
            "view": rng.choice(["AP", "PA"], size),
            "sex": rng.choice(["F", "M"], size),
            "age": rng.integers(1, 95, size),
            "status": OK,
            "source": "",
        }
        tables.append(pd.DataFrame(numbers, columns=[*names, "l1", "distance"]).assign(**about))
    before = peak_bytes()
    start = time.perf_counter()
    find_drift(*tables, quantities)
    answer.send(
        {
            "seconds": round(time.perf_counter() - start, 1),
            "gib_more": round((peak_bytes() - before) / 2**30, 2),
        }
    )
