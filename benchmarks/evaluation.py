"""What the patient bootstrap costs at the size of the whole data set's test part."""

from __future__ import annotations

import multiprocessing
import time
from typing import Any

import numpy as np

from benchmarks.runners import peak_bytes
from cxrmodel.evaluation.metrics import resample_metrics
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions

NUM_IMAGES, NUM_PATIENTS, NUM_CLASSES = 16_818, 4_620, 14
NUM_RESAMPLES = 1_000


def measure_bootstrap() -> dict[str, Any]:
    """Resample every metric in a process of its own, made-up predictions of the real size.

    Returns:
        `bootstrap_s`: wall time; `bootstrap_peak_gib`: highest resident memory of the process,
        with the libraries that it imports.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, peak = pool.apply(_resample)
    return {"bootstrap_s": round(seconds, 1), "bootstrap_peak_gib": round(peak, 2)}


def _resample() -> tuple[float, float]:
    rng = np.random.default_rng(0)
    patients = np.sort(rng.integers(0, NUM_PATIENTS, NUM_IMAGES)).astype(np.int64)
    patients = np.unique(patients, return_inverse=True)[1].astype(np.int64)
    labels = (rng.random((NUM_IMAGES, NUM_CLASSES)) < rng.uniform(0.002, 0.18, NUM_CLASSES)).astype(
        np.uint8
    )
    probabilities = rng.random((NUM_IMAGES, NUM_CLASSES))
    test = Predictions(tuple(map(str, range(NUM_CLASSES))), labels, probabilities, patients)
    started = time.perf_counter()
    thresholds = np.full(NUM_CLASSES, 0.5)
    resample_metrics(test, thresholds, PatientBootstrap(patients, num_resamples=NUM_RESAMPLES))
    return time.perf_counter() - started, peak_bytes() / 2**30
