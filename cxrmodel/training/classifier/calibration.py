"""Turns logits back into probabilities after a loss whose minimum is not at the probability.

Platt scaling, fitted on validation, keeps the order of the images: ranks, AUROC and average
precision do not change. It becomes part of the network's last layer, so that the published weights
give calibrated probabilities.

Shapes: N images, K labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from cxrmodel.models.classifier import Classifier
from cxrmodel.models.platt_scaling import fit_platt_scaling
from cxrmodel.training.classifier.labelled_latents import LabelledLatents

MIN_SLOPE = 0.01  # per standard deviation: it keeps the order, with nearly equal probabilities


def recalibrate(model: Classifier, data: LabelledLatents) -> dict[str, list[float]]:
    """Scale the logits of a trained network in place.

    Args:
        model: In evaluation mode, on its device.
        data: With at least one validation image.

    Returns:
        `slope` and `intercept`, K numbers each.
    """
    (_, train_labels), (latents, val_labels) = data.part("train"), data.part("val")
    device = model.mean.device
    with torch.inference_mode():
        logits = model(latents.to(device)).cpu().double().numpy()
    labels = val_labels.numpy()
    # The rule of succession: as with one more positive and one more negative image.
    num_positive, num_known = (train_labels == 1).sum(dim=0), (~train_labels.isnan()).sum(dim=0)
    shares = (num_positive.double() + 1) / (num_known + 2)
    scaling = [
        fit_scaling(labels[:, k], logits[:, k], share) for k, share in enumerate(shares.tolist())
    ]
    slope, intercept = (list(values) for values in zip(*scaling, strict=True))
    model.scale_logits(torch.tensor(slope, device=device), torch.tensor(intercept, device=device))
    return {"slope": slope, "intercept": intercept}


def fit_scaling(
    labels: NDArray[np.floating[Any]], logits: NDArray[np.float64], share: float
) -> tuple[float, float]:
    """Return slope and intercept of one class.

    Where validation lacks positive or negative images, the logits are shifted so that their mean
    probability is the share of train. Where they rank validation worse than chance, they are also
    shrunk.

    Args:
        labels: (N,), 1, 0, or NaN where unknown, of validation images.
        logits: (N,).
        share: Of positive train images, in (0, 1).
    """
    if not (labels == 1).any() or not (labels == 0).any():
        return 1.0, _shift(logits, share)
    known = ~np.isnan(labels)
    labels, logits = labels[known], logits[known]
    spread = float(logits.std()) or 1.0  # the fit is stable with numbers near 1
    slope, intercept = fit_platt_scaling(labels.astype(np.uint8), logits / spread)
    if slope < MIN_SLOPE:
        slope = MIN_SLOPE
        intercept = _shift(slope * logits / spread, share)
    return slope / spread, intercept


def _shift(logits: NDArray[np.float64], share: float) -> float:
    """Return what to add to the logits for this mean probability."""
    middle = float(logit(share))
    between = middle - logits.max() - 1, middle - logits.min() + 1
    return float(brentq(lambda shift: expit(logits + shift).mean() - share, *between))
