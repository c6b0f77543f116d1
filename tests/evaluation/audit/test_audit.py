"""What is planted is found, and clean data raise nothing."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cxrmodel.evaluation.audit.audit import audit_run
from cxrmodel.evaluation.audit.duplicates import find_duplicates
from cxrmodel.evaluation.audit.subgroups import EVERYONE, worse_off
from cxrmodel.evaluation.autoencoder import TOO_SMALL
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap
from cxrmodel.evaluation.perceptual_hash import hash_images
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.resolution import to_unit

NAMES = ("A", "B")
COUNT = 600


class ArrayPixels:
    def __init__(self, names, images):
        self.names, self.images, self.size = list(names), images, images.shape[-1]

    def rows_of(self, images):
        return np.array([self.names.index(image) for image in images])

    def read(self, rows):
        return self.images[rows]


def waves(rng, count, size=64):
    """Pictures of a few waves each, all different."""
    grid = np.linspace(0, 1, size)
    total = np.zeros((count, size, size))
    for _ in range(3):
        x, y = rng.uniform(-12, 12, (2, count, 1, 1))
        phase = rng.uniform(0, 6, (count, 1, 1))
        total += np.sin(x * grid[None, None] + y * grid[None, :, None] + phase)
    return (127 + 35 * total).astype(np.uint8)


def make(rng, *, skill=1.0, by_view=0.0, by_sex=0.0):
    """A run's tables: a score that knows the labels, and may know the view or fail one sex."""
    view = rng.choice(["AP", "PA"], COUNT)
    sex = rng.choice(["F", "M"], COUNT)
    rate = 0.35 + by_view * 0.3 * np.where(view == "AP", 1, -1)
    labels = (rng.random((COUNT, 2)) < rate[:, None]).astype(np.uint8)
    own = skill * labels * np.where(sex == "F", 1 - by_sex, 1)[:, None]
    scores = own + 3 * by_view * (view == "AP")[:, None] + rng.normal(size=labels.shape)
    images = pd.DataFrame(
        {
            "image": [f"{row}.png" for row in range(COUNT)],
            "split": np.repeat(["train", "val", "test"], COUNT // 3),
            "crc32": np.arange(COUNT),
            "patient_id": np.arange(COUNT) // 2,
            "age": pd.array(rng.integers(1, 90, COUNT), dtype="Int16"),
            "sex": sex,
            "view": view,
            "follow_up": pd.array(rng.integers(0, 9, COUNT), dtype="Int32"),
            "source": "nih",
            "any_abnormal": labels.max(axis=1),
            **dict(zip(NAMES, labels.T, strict=True)),
        }
    )
    latents = pd.DataFrame(rng.normal(size=(COUNT, 3)), columns=["mu_00", "mu_01", "mu_02"])
    latents["mu_02"] += 3.0 * (view == "AP")
    latents[["logvar_00", "logvar_01", "logvar_02"]] = 0.0
    latents["l1"], latents["psnr"] = rng.uniform(0.02, 0.04, COUNT), 24.0
    latents["ssim"], latents["ms_ssim"] = rng.uniform(0.7, 0.9, COUNT), np.nan
    probabilities = expit(scores - 1)
    predictions = {
        part: Predictions(
            NAMES, labels[rows], probabilities[rows], np.arange(rows.sum(), dtype=np.int64) // 2
        )
        for part in ("train", "val", "test")
        for rows in [(images["split"] == part).to_numpy()]
    }
    return images, latents, predictions


@pytest.fixture(scope="module")
def pixels():
    return waves(np.random.default_rng(9), COUNT)


def audit(made, pixels):
    images, latents, predictions = made
    hashes = hash_images(to_unit(pixels))
    shown = ArrayPixels(images["image"], pixels)
    bootstrap = PatientBootstrap(predictions["test"].patients, num_resamples=200)
    return audit_run(images, hashes, latents, predictions, shown, bootstrap)


@pytest.fixture(scope="module")
def clean(pixels):
    return audit(make(np.random.default_rng(0)), pixels)


def test_clean_data_raise_nothing(clean):
    assert clean.duplicates.exact == clean.duplicates.near == []
    assert [kind for kind, shortcut in clean.shortcuts.items() if shortcut.is_notable] == []
    assert worse_off(clean.subgroups) == []


def test_a_planted_shortcut_is_found_and_named(pixels):
    found = audit(make(np.random.default_rng(1), skill=0, by_view=1.0), pixels)
    assert [kind for kind, shortcut in found.shortcuts.items() if shortcut.is_notable] == ["view"]
    view = found.shortcuts["view"]
    assert view.pooled.value > 0.65
    low, high = view.within.interval
    assert low < 0.5 < high
    assert view.drop.value == pytest.approx(view.pooled.value - view.within.value)
    assert set(view.by_stratum) == {"AP", "PA"}
    assert view.alone.value > 0.6


def test_of_several_data_sets_each_is_judged_and_may_be_a_shortcut(clean, pixels):
    images, latents, predictions = make(np.random.default_rng(1), skill=0, by_view=1.0)
    images["source"] = np.where(images["view"] == "AP", "nih", "chexpert")
    found = audit((images, latents, predictions), pixels)
    assert found.shortcuts["source"].is_notable
    assert sum(one.num_images for one in found.sources.values()) == COUNT // 3
    of_nih = (images["split"] == "test") & (images["source"] == "nih")
    nih = found.sources["nih"]
    assert nih.l1.value == pytest.approx(latents.loc[of_nih, "l1"].mean())
    assert nih.auroc.value == pytest.approx(found.shortcuts["source"].by_stratum["nih"].value)
    assert clean.sources == {}
    assert "source" not in clean.shortcuts


def test_permuted_labels_give_intervals_around_one_half(pixels):
    images, latents, predictions = make(np.random.default_rng(2), skill=2.0)
    order = np.random.default_rng(3).permutation(COUNT // 3)
    test = predictions["test"]
    mixed = Predictions(NAMES, test.labels[order], test.probabilities, test.patients)
    images.loc[images["split"] == "test", "any_abnormal"] = mixed.labels.max(axis=1)
    found = audit((images, latents, predictions | {"test": mixed}), pixels)
    estimates = [
        found.subgroups[EVERYONE].auroc,
        found.shortcuts["view"].pooled,
        *found.anomaly.values(),
    ]
    assert len(estimates) == 5
    for estimate in estimates:
        assert estimate.interval[0] < 0.5 < estimate.interval[1]


def test_probes_find_the_view_that_the_latents_hold_and_nothing_else(clean):
    assert clean.probes["view"].value > 0.95
    low, high = clean.probes["sex"].interval
    assert low < 0.5 < high
    assert clean.probes["age"].value < 0.1


def test_a_group_that_the_score_fails_is_named(pixels):
    found = audit(make(np.random.default_rng(5), skill=5.0, by_sex=1.0), pixels)
    assert "F" in worse_off(found.subgroups)
    assert "M" not in worse_off(found.subgroups)
    women, men = found.subgroups["F"], found.subgroups["M"]
    assert women.num_images + men.num_images == COUNT // 3
    assert women.false_negative_rate.value > men.false_negative_rate.value
    assert all(group.num_images >= 30 for group in found.subgroups.values())


def test_rates_of_a_subgroup_by_hand(clean):
    images, _, predictions = make(np.random.default_rng(0))
    test, group = predictions["test"], clean.subgroups["M"]
    men = (images["sex"] == "M").to_numpy()[400:]
    called = 1 - (1 - test.probabilities).prod(axis=1) >= clean.threshold.value
    abnormal = test.labels.max(axis=1) == 1
    assert group.num_abnormal == (men & abnormal).sum()
    assert group.false_positive_rate.value == pytest.approx(called[men & ~abnormal].mean())
    assert group.false_negative_rate.value == pytest.approx(1 - called[men & abnormal].mean())


def test_reconstruction_by_group_by_hand(clean):
    images, latents, _ = make(np.random.default_rng(0))
    rows = (images["split"] == "test") & (images["A"] == 1)
    found = clean.reconstruction["A"]
    assert found.num_images == rows.sum()
    quality = found.quality
    assert quality["l1"].value == pytest.approx(latents.loc[rows, "l1"].mean())
    assert quality["psnr"].interval == (24, 24)
    assert quality["ssim"].value == pytest.approx(latents.loc[rows, "ssim"].mean())
    assert quality["ms_ssim"].reason == TOO_SMALL
    assert set(clean.reconstruction) == {"view AP", "view PA", "no listed finding", "A", "B"}


def test_planted_duplicates_are_found_and_a_chance_checksum_is_not(pixels):
    images = make(np.random.default_rng(0))[0]
    copies = pixels.copy()
    copies[410] = copies[3]  # a copy
    noise = np.random.default_rng(1).normal(0, 1, copies[0].shape)
    copies[420] = np.clip(0.9 * copies[7] + 10 + noise, 0, 255)  # a copy, encoded anew
    images.loc[410, "crc32"] = images.loc[3, "crc32"]
    images.loc[430, "crc32"] = images.loc[4, "crc32"]  # another image of the same checksum
    hashes = hash_images(to_unit(copies))
    found = find_duplicates(images, hashes, ArrayPixels(images["image"], copies))
    assert found.exact == [("410.png", "3.png")]
    assert found.near == [("420.png", "7.png")]
    assert found.num_test_images == 2


def test_without_test_images_everything_is_undefined(pixels):
    images, latents, _ = make(np.random.default_rng(0))
    images["split"] = "train"
    none = Predictions(
        NAMES, np.zeros((0, 2), np.uint8), np.zeros((0, 2)), np.zeros(0, dtype=np.int64)
    )
    found = audit((images, latents, {"train": none, "val": none, "test": none}), pixels)
    assert found.subgroups == found.reconstruction == {}
    assert found.threshold.value is None
    assert found.shortcuts["view"].drop.value is None
    assert all(estimate.value is None for estimate in found.anomaly.values())
