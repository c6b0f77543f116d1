"""What the classifier minimises, and the score that can choose its epoch.

Shapes: B batch, N images, K labels. A label is 1, 0, or NaN where it is unknown: it takes no part,
and its logit has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]

# The defaults of the authors' code, github.com/Alibaba-MIIL/ASL.
GAMMA_POSITIVE, GAMMA_NEGATIVE, MARGIN = 1, 4, 0.05


def make_loss(name: Literal["bce", "balanced", "asymmetric"], train_labels: Tensor) -> Loss:
    """Return a function of logits and labels, both (B, K), that gives their mean loss.

    The mean is over the known labels of the batch, of which there has to be one.

    Args:
        name: Of the loss.
        train_labels: (N, K); `balanced` counts them.
    """
    weights = positive_weights(train_labels) if name == "balanced" else None

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        weight = None if weights is None else weights.expand_as(logits)
        known = ~labels.isnan()
        if not known.all():  # picking costs as much as the rest
            logits, labels = logits[known], labels[known]
            weight = None if weight is None else weight[known]
        if name == "asymmetric":
            return asymmetric_loss(logits, labels)
        return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)

    return loss


def positive_weights(labels: Tensor) -> Tensor:
    """Return (K,): negative images over positive ones; over 1 where there is no positive one."""
    return (labels == 0).sum(dim=0) / (labels == 1).sum(dim=0).clamp(min=1)


def asymmetric_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of a cross-entropy in which easy negatives count little; labels are 0 or 1.

    Source: T. Ridnik et al., Asymmetric loss for multi-label classification, ICCV 2021,
    arXiv:2009.14119. Their code adds the losses up; here they are averaged.
    """
    probability = logits.sigmoid()
    shifted = (probability - MARGIN).clamp(min=0)  # at most 0.95: its logarithm below is finite
    positive = (-logits).sigmoid() ** GAMMA_POSITIVE * functional.logsigmoid(logits)
    negative = shifted**GAMMA_NEGATIVE * torch.log1p(-shifted)
    return -(labels * positive + (1 - labels) * negative).mean()


def mean_average_precision(logits: Tensor, labels: Tensor) -> float | None:
    """Return the unweighted mean over labels with a positive and a negative image, if any.

    Args:
        logits: (N, K), finite.
        labels: (N, K).
    """
    columns = has_both(labels).nonzero()[:, 0].cpu()
    truth, found = labels.cpu().numpy(), logits.cpu().numpy()
    scores = []
    for k in columns:
        known = ~np.isnan(truth[:, k])
        scores.append(average_precision_score(truth[known, k], found[known, k]))
    return float(np.mean(scores)) if scores else None


def has_both(labels: Tensor) -> Tensor:
    """Return (K,), which of (N, K) labels have a positive and a negative image."""
    return (labels == 1).any(dim=0) & (labels == 0).any(dim=0)
