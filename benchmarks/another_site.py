"""Whether a comparison with another site tells the truth: the coverage of its intervals.

A model is trained on synthetic images. Two populations of others are drawn: one as at home, and one
with another detector (blurred, darker, noisier), fewer healthy patients and more images taken
lying. What the model loses from one population to the other is known: it is computed from all of
their images. Again and again, patients of both are drawn, with replacement, as a test set and a
site, and compared as `flows/evaluate.py` does.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.sites import Frozen, Place, compare_places, score_place
from cxrmodel.inference.predictor import Model, load
from cxrmodel.inference.site import frozen_of, place_of
from cxrmodel.phantom import ImageSpec, draw_image, write_phantoms
from cxrmodel.phantom.population import sample_entries

PROJECT = Path(__file__).parents[1]
SIZE_PX = 64
NUM_TRAIN, NUM_POPULATION = 1200, 1200
NUM_PATIENTS = 300  # of a test set, and of a site
NUM_SIMULATIONS, NUM_RESAMPLES = 200, 500
MIN_PREVALENCE = 0.05  # so that every draw can judge the same labels
HEALTHY_SHARE, LYING_SHARE = 0.35, 0.6  # of the healthy patients, of the standing images
CHECKED = {
    "auroc": "macro AUROC",
    "brier": "macro Brier score",
    "excess": "macro mean probability less share of positives",
}

Draw = Callable[[ImageSpec], NDArray[np.uint8]]


def measure_another_site(
    work: Path, num_simulations: int = NUM_SIMULATIONS, num_population: int = NUM_POPULATION
) -> dict[str, Any]:
    """Train, draw both populations, and count how often the interval holds the true loss.

    Args:
        work: Folder for everything made.
        num_simulations: How often a test set and a site are drawn.
        num_population: Images of each population.

    Returns:
        `holds_<score>`: share of the intervals that hold the true change of a macro score from
        home to the site; `home_<score>`: the score at home; `change_<score>`: the true change;
        and `labels`, over how many they are means.
    """
    model = load(_train(work), device="cpu")
    at_home = [entry.spec for entry in sample_entries(num_population, seed=1)]
    elsewhere = [entry.spec for entry in sample_entries(2 * num_population, seed=2)]
    there = [at_site(spec) for spec in elsewhere if _comes(spec)][:num_population]
    home = _population(model, at_home, draw_at_home)
    site = _population(model, there, draw_at_site)
    labels = [
        label
        for label in model.labels
        if min(table[f"y_{label}"].mean() for table in (home, site)) >= MIN_PREVALENCE
    ]
    frozen = frozen_of(model.bundle, tuple(labels))
    here, away = (_of_all(table, labels, frozen) for table in (home, site))
    truth = {name: away[name] - here[name] for name in CHECKED}
    held: dict[str, list[bool]] = {name: [] for name in CHECKED}
    rng = np.random.default_rng(0)
    for number in range(num_simulations):
        small_home = _draw_patients(home, labels, rng, 0)
        small_site = _draw_patients(site, labels, rng, NUM_PATIENTS)
        found = compare_places(
            small_site, small_home, frozen, seed=number, num_resamples=NUM_RESAMPLES
        )
        for name, answers in held.items():
            low, high = found.macro[name].interval or (np.nan, np.nan)
            answers.append(bool(low <= truth[name] <= high))
    return {
        **{f"holds_{name}": round(float(np.mean(answers)), 3) for name, answers in held.items()},
        **{f"home_{name}": round(value, 4) for name, value in here.items()},
        **{f"change_{name}": round(value, 4) for name, value in truth.items()},
        "labels": len(labels),
    }


def _train(work: Path) -> str:
    """Train on synthetic images as at home; return the place of the bundle."""
    write_phantoms(work / "home", NUM_TRAIN, size_px=SIZE_PX)
    flags = {
        "data.root": work / "home", "images.size": SIZE_PX, "vae.epochs": 6, "vae.batch_size": 8,
        "vae.lr": 1e-3, "classifier.epochs": 12, "report.num_reconstructions": 2,
        "report.tsne_points": 50, "store.root": work / "store", "store.scratch": work / "scratch",
        "runtime.device": "cpu",
    }  # fmt: skip
    command = [sys.executable, str(PROJECT / "flows" / "main.py")]
    command += [f"--{name}={value}" for name, value in flags.items()]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd=PROJECT)
    (place,) = re.findall(r"^bundle: (.*)$", done.stdout, re.MULTILINE)
    return str(place)


def draw_at_home(spec: ImageSpec) -> NDArray[np.uint8]:
    """Draw an image as those the model is trained on."""
    return draw_image(spec, SIZE_PX)


def draw_at_site(spec: ImageSpec) -> NDArray[np.uint8]:
    """Draw an image as another detector sees it: blurred, darker and noisier."""
    rng = spec.image_rng(9)
    sharp = draw_image(spec, SIZE_PX).astype(np.float64) / 255
    seen = ndimage.gaussian_filter(sharp, 0.7) ** 1.3 + rng.normal(0, 0.015, sharp.shape)
    return np.clip(255 * seen + 0.5, 0, 255).astype(np.uint8)


def at_site(spec: ImageSpec) -> ImageSpec:
    """Return an image as it is taken at the site: more often lying."""
    lies = spec.image_rng(8).random() < LYING_SHARE
    return replace(spec, view="AP") if lies else spec


def _comes(spec: ImageSpec) -> bool:
    """Say whether an image is taken at the site, where fewer show no finding."""
    return bool(spec.findings) or spec.image_rng(7).random() < HEALTHY_SHARE


def _population(model: Model, specs: list[ImageSpec], draw: Draw) -> pd.DataFrame:
    """Return a row per image: patient, covariates, labels and the model's probabilities."""
    with ProcessPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(draw, specs, chunksize=50)))
    about = pd.DataFrame(
        {
            "patient": pd.factorize(np.array([spec.patient_id for spec in specs]))[0],
            **{name: [getattr(spec, name) for spec in specs] for name in ("view", "sex", "age")},
        }
    )
    truth = {f"y_{x}": [float(x in spec.findings) for spec in specs] for x in model.labels}
    return pd.concat([about, pd.DataFrame(truth), model.score(pixels)], axis="columns")


def _of_all(table: pd.DataFrame, labels: list[str], frozen: Frozen) -> dict[str, float]:
    """Return the macro scores of a whole population."""
    place = place_of(table, labels, table["patient"].to_numpy(np.int64))
    bootstrap = PatientBootstrap(place.predictions.patients, num_resamples=1)
    macro = score_place(place, frozen, bootstrap).macro
    return {name: macro[name].value or np.nan for name in CHECKED}


def _draw_patients(
    table: pd.DataFrame, labels: list[str], rng: np.random.Generator, first: int
) -> Place:
    """Draw patients with replacement: a patient drawn twice counts as two.

    Args:
        table: The population.
        labels: Which labels to keep.
        rng: Of the draw.
        first: Number of the first patient drawn.
    """
    rows = table.groupby("patient").indices
    drawn = rng.integers(0, len(rows), NUM_PATIENTS)
    patients = [np.full(len(rows[each]), number) for number, each in enumerate(drawn, first)]
    chosen = table.iloc[np.concatenate([rows[each] for each in drawn])].reset_index(drop=True)
    chosen = chosen.drop(columns=["view", "sex", "age"])  # no subgroups, which would take long
    return place_of(chosen, labels, np.concatenate(patients))
