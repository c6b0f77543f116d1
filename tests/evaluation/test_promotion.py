"""An equal challenger is seldom promoted, a worse one never, a better one is."""

import numpy as np
import pytest

from cxrmodel.evaluation.promotion import HeldOut, Rules, judge

LABELS = ("Effusion", "Mass", "Nodule")
NUM_PATIENTS, NUM_RESAMPLES = 120, 150


def held_out(seed, champion=1.0, challenger=1.0, *, unlabelled=0.0) -> HeldOut:
    """Draw images of patients: disease and reading errors go with the patient.

    Args:
        seed: Of the draw.
        champion: How far apart its scores of ill and of well are, in their standard deviation.
        challenger: Likewise.
        unlabelled: Share of labels that nobody gave.
    """
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(NUM_PATIENTS), rng.integers(1, 6, NUM_PATIENTS))
    shape = (NUM_PATIENTS, len(LABELS))
    truth = (rng.random(shape) < 0.25)[patients].astype(float)
    shared = rng.normal(size=shape)[patients] + rng.normal(size=truth.shape)
    told = []
    for distance in (champion, challenger):
        own = rng.normal(size=shape)[patients] / 2 + rng.normal(size=truth.shape) / 2
        told.append(1 / (1 + np.exp(-(distance * truth + shared + own))))
    truth[rng.random(truth.shape) < unlabelled] = np.nan
    return HeldOut(LABELS, truth, told[0], told[1], patients)


def promoted(num_simulations, **quality) -> int:
    found = (
        judge(held_out(seed, **quality), Rules(), seed=seed, num_resamples=NUM_RESAMPLES)
        for seed in range(num_simulations)
    )
    return sum(judgement.is_better for judgement in found)


def test_an_equal_challenger_is_promoted_in_at_most_5_percent():
    assert 0 < promoted(200) <= 10


def test_a_worse_challenger_is_never_promoted():
    assert promoted(50, champion=1.6, challenger=1.0) == 0


def test_a_better_challenger_is_promoted():
    assert promoted(50, champion=0.5, challenger=2.0, unlabelled=0.3) == 50


def test_the_same_predictions_are_no_gain():
    images = held_out(1)
    same = HeldOut(LABELS, images.truth, images.champion, images.champion, images.patients)
    judgement = judge(same, Rules())
    assert not judgement.is_better
    assert judgement.macro["gain"].interval == (0, 0)
    assert judgement.reasons == (
        "The gain in macro AUROC, +0.0000 (+0.0000 to +0.0000), is not above 0.",
    )


def test_a_margin_asks_for_more():
    images = held_out(2, champion=0.8, challenger=1.6)
    assert judge(images, Rules()).is_better
    assert not judge(images, Rules(margin=0.3)).is_better


def test_a_guarded_label_that_falls_stops_a_better_challenger():
    images = held_out(3, champion=0.5, challenger=2.0)
    images.challenger[:, 1] = np.random.default_rng(3).random(len(images.patients))
    assert judge(images, Rules()).is_better
    judgement = judge(images, Rules(guard=("Mass", "Effusion")))
    assert not judgement.is_better
    assert len(judgement.reasons) == 1
    assert judgement.reasons[0].startswith("Mass may fall by more than 0.02: -")
    assert judge(images, Rules(guard=("Effusion",))).is_better
    with pytest.raises(ValueError, match="guard names 'Hernia', and the labels of both"):
        judge(images, Rules(guard=("Hernia",)))


def test_what_cannot_be_told_is_no_gain():
    images = held_out(4)
    images.truth[:] = np.nan
    judgement = judge(images, Rules())
    assert not judgement.is_better
    assert judgement.reasons[0].startswith("Nothing can be told: one of the two is undefined")
    one = HeldOut(LABELS, *(x[:4] for x in (held_out(5).truth, images.champion, images.challenger)),
                  np.zeros(4, dtype=np.int64))  # fmt: skip
    assert not judge(one, Rules()).is_better
