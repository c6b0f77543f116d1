import numpy as np
import pandas as pd
import pytest

from cxrmodel.evaluation.autoencoder import evaluate_autoencoder, kl_to_prior
from cxrmodel.evaluation.patient_bootstrap import PatientBootstrap


def test_kl_by_hand():
    latents = pd.DataFrame(
        {"mu_00": [0.0, 2.0], "mu_01": 0.0, "logvar_00": 0.0, "logvar_01": [0.0, np.log(4)]}
    )
    np.testing.assert_allclose(kl_to_prior(latents), [[0, 0], [2, 0.8068528]])


def test_scores_by_hand():
    latents = pd.DataFrame(
        {
            "image": list("abcd"),
            "split": ["train", "val", "test", "test"],
            "mu_00": [9.0, 9.0, 2.0, 0.0],
            "mu_01": [0.0, 0.0, 0.01, 0.0],
            "logvar_00": 0.0,
            "logvar_01": 0.0,
            "l1": [9.0, 0.5, 0.1, 0.3],
            "psnr": [0.0, 0.0, 20.0, 30.0],
            "ssim": [None, None, 0.8, 0.9],
            "ms_ssim": [None, None, 0.9, 1.0],
        }
    )
    found = evaluate_autoencoder(latents, PatientBootstrap(np.array([0, 1])))
    values = {name: metric.value for name, metric in found.metrics.items()}
    assert values == pytest.approx(
        {
            "val_l1": 0.5,
            "test_l1": 0.2,
            "test_psnr": 25,
            "test_ssim": 0.85,
            "test_ms_ssim": 0.95,
            "kl_nats": 1.000025,
            "active_units": 1,
            "aggregate_kl_nats": 40.5,  # half the square of 9, of one train image
        }
    )
    assert found.kl_per_dim == pytest.approx([1, 0.000025])
    bounds = {"test_l1": (0.1, 0.3), "test_psnr": (20, 30), "test_ssim": (0.8, 0.9)}
    for name, interval in (bounds | {"test_ms_ssim": (0.9, 1.0)}).items():
        assert found.metrics[name].interval == pytest.approx(interval)


def test_small_images_have_one_scale_alone():
    latents = pd.DataFrame(
        {
            "image": list("ab"),
            "split": "test",
            "mu_00": [0.0, 1.0],
            "logvar_00": 0.0,
            "l1": 0.1,
            "psnr": 20.0,
            "ssim": [0.5, 0.7],
            "ms_ssim": pd.array([None, None], dtype="Float32"),
        }
    )
    found = evaluate_autoencoder(latents, PatientBootstrap(np.array([0, 1])))
    assert found.metrics["test_ssim"].value == pytest.approx(0.6)
    assert found.metrics["test_ms_ssim"].reason == (
        "images of less than 161 px a side are too small for five scales"
    )
    assert found.metrics["test_ms_ssim"].interval is None


def test_without_test_images_everything_of_test_is_undefined():
    latents = pd.DataFrame(
        {
            "image": ["a"],
            "split": ["val"],
            "mu_00": [0.0],
            "logvar_00": [0.0],
            "l1": [0.1],
            "psnr": [9.0],
            "ssim": [None],
            "ms_ssim": [None],
        }
    )
    found = evaluate_autoencoder(latents, PatientBootstrap(np.zeros(0, np.int64)))
    undefined = {name for name, metric in found.metrics.items() if metric.value is None}
    assert undefined == {"kl_nats", "active_units", "aggregate_kl_nats"} | {
        f"test_{name}" for name in ("l1", "psnr", "ssim", "ms_ssim")
    }
    assert {metric.reason for metric in found.metrics.values() if metric.reason} == {
        "no test image",
        "no train image",
        "fewer than two test images",
    }
    assert {score.interval for score in found.metrics.values()} == {None}


def test_one_image_has_no_active_unit_to_count():
    columns = ("mu_00", "logvar_00", "l1", "psnr", "ssim", "ms_ssim")
    latents = pd.DataFrame({"image": ["a"], "split": "test", **dict.fromkeys(columns, 0.5)})
    found = evaluate_autoencoder(latents, PatientBootstrap(np.array([0])))
    assert found.metrics["active_units"].reason == "fewer than two test images"
