"""What the classifier minimises, and the score that can choose its epoch.

Shapes: B batch, N images, K pathologies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]

# The defaults of the authors' code, github.com/Alibaba-MIIL/ASL.
GAMMA_POSITIVE, GAMMA_NEGATIVE, MARGIN = 1, 4, 0.05


def make_loss(name: Literal["bce", "balanced", "asymmetric"], train_labels: Tensor) -> Loss:
    """Return a function of logits and labels, both (B, K), that gives their mean loss.

    Args:
        name: Of the loss.
        train_labels: (N, K), 0 or 1; `balanced` counts them.
    """
    if name == "asymmetric":
        return asymmetric_loss
    return nn.BCEWithLogitsLoss(
        pos_weight=positive_weights(train_labels) if name == "balanced" else None
    )


def positive_weights(labels: Tensor) -> Tensor:
    """Return (K,): negative images over positive ones; over 1 where there is no positive one."""
    num_positive = labels.sum(dim=0)
    return (len(labels) - num_positive) / num_positive.clamp(min=1)


def asymmetric_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of a cross-entropy in which easy negatives count little.

    Source: T. Ridnik et al., Asymmetric loss for multi-label classification, ICCV 2021,
    arXiv:2009.14119, with the mean over batch and classes where their code has the sum.
    """
    probability = logits.sigmoid()
    shifted = (probability - MARGIN).clamp(min=0)  # at most 0.95: its logarithm below is finite
    positive = (-logits).sigmoid() ** GAMMA_POSITIVE * functional.logsigmoid(logits)
    negative = shifted**GAMMA_NEGATIVE * torch.log1p(-shifted)
    return -(labels * positive + (1 - labels) * negative).mean()


def mean_average_precision(logits: Tensor, labels: Tensor) -> float | None:
    """Return the unweighted mean over classes with a positive and a negative image, if any.

    Args:
        logits: (N, K), finite.
        labels: (N, K), 0 or 1.
    """
    columns = has_both(labels).nonzero()[:, 0].cpu()
    truth, found = labels.cpu().numpy(), logits.cpu().numpy()
    scores = [average_precision_score(truth[:, k], found[:, k]) for k in columns]
    return float(np.mean(scores)) if scores else None


def has_both(labels: Tensor) -> Tensor:
    """Return (K,), whether a class has a positive and a negative image among (N, K) labels."""
    num_positive = labels.sum(dim=0)
    return (num_positive > 0) & (num_positive < len(labels))
