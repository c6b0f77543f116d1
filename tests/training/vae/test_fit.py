import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DataError
from cxrmodel.models.posterior import num_active_units
from cxrmodel.training.encoding import load_vae
from cxrmodel.training.image_batches import to_device

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)
CPU = torch.device("cpu")
HISTORY = [
    "epoch",
    "step",
    "train_l1",
    "train_kl_nats",
    "train_loss",
    "lr",
    "kl_weight",
    "skipped_steps",
    "val_l1",
    "val_kl_nats",
    "val_kl_nats_per_dim",
    "val_kl_nats_by_dim",
    "val_loss",
    "posterior_variance",
    "active_units",
]


def weights_of(directory: Path) -> bytes:
    return (directory / "vae.safetensors").read_bytes()


def test_a_run_publishes_weights_config_and_history(fit, device):
    directory, summary = fit()
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "history.parquet",
        "vae.safetensors",
        "vae_best.safetensors",
    ]
    history = pd.read_parquet(directory / "history.parquet")
    assert list(history.columns) == HISTORY
    assert history["epoch"].tolist() == [1, 2]
    assert history["step"].tolist() == [4, 8]  # 14 train images in batches of 4
    np.testing.assert_allclose(
        history["train_loss"], history["train_l1"] + 1e-3 * history["train_kl_nats"] / 4
    )
    np.testing.assert_allclose(history["val_kl_nats_per_dim"], history["val_kl_nats"] / 4)
    by_dimension = np.stack(history["val_kl_nats_by_dim"])
    assert by_dimension.shape == (2, 4)
    np.testing.assert_allclose(by_dimension.sum(axis=1), history["val_kl_nats"])
    assert history["lr"].tolist() == history["kl_weight"].tolist() == [1e-3, 1e-3]
    config = json.loads((directory / "config.json").read_text())
    assert config["architecture"] == {
        "image_size": 64,
        "latent_dim": 4,
        "group_norm": False,
        "output_bias": False,
    }
    assert (config["precision"], config["device"], config["seed"]) == (
        "float32",
        torch.device(device).type,
        42,
    )
    assert config["config"]["lr"] == 1e-3
    assert summary["published_epoch"] == summary["epochs"] == 2
    assert summary["val_l1"] == history["val_l1"].iloc[-1]
    json.dumps(summary, allow_nan=False)


def test_training_learns(fit):
    _, summary = fit(config=CONFIG.model_copy(update={"epochs": 60, "lr": 5e-3}))
    assert summary["train_l1"] < 0.1  # a grey image has 0.2


def test_two_runs_are_equal_to_the_byte(fit):
    first, _ = fit("first", checkpoints="a")
    torch.rand(17)
    second, _ = fit("second", checkpoints="b")
    for name in ("vae.safetensors", "config.json", "history.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_another_seed_gives_other_weights(fit):
    first, _ = fit("first", checkpoints="a")
    second, _ = fit("second", CONFIG.model_copy(update={"seed": 1}), checkpoints="b")
    assert weights_of(first) != weights_of(second)


def test_the_process_generator_is_left_alone(fit):
    before = torch.get_rng_state()
    fit()
    assert torch.equal(torch.get_rng_state(), before)


def only_train(split):
    table = pd.read_parquet(split / "split.parquet")
    table[table["split"] == "train"].to_parquet(split / "split.parquet", index=False)


def test_without_validation_images_the_last_weights_can_be_had(fit, split):
    only_train(split)
    directory, summary = fit()
    history = pd.read_parquet(directory / "history.parquet")
    assert list(history.columns) == HISTORY
    assert history["val_loss"].isna().all()
    assert summary["val_loss"] is None


def test_without_validation_images_there_is_no_best(fit, split):
    only_train(split)
    with pytest.raises(ValueError, match=r"vae\.weights is 'best'.*no validation image"):
        fit(config=CONFIG.model_copy(update={"weights": "best"}))


def test_without_train_images_there_is_nothing_to_do(fit, split):
    table = pd.read_parquet(split / "split.parquet")
    table.assign(split="val").to_parquet(split / "split.parquet", index=False)
    with pytest.raises(DataError, match="has no train image"):
        fit()


def test_progress_is_reported(fit, report_every_step):
    told = []
    fit(report=told.append)
    assert {(progress.stage, progress.total, progress.unit) for progress in told} == {
        ("vae", 8, "steps")
    }
    steps = [progress.done for progress in told]
    assert steps == sorted(steps)
    assert steps[-1] == 8
    assert {"l1", "kl_nats", "images_per_s", "loader_wait"} <= set(told[0].metrics)
    assert all(0 <= progress.metrics.get("loader_wait", 0) <= 1 for progress in told)
    assert {"val_l1", "val_loss", "active_units"} <= set(told[-1].metrics)


def test_the_speed_of_a_training_is_reported_and_not_in_its_history(fit):
    directory, summary = fit()
    assert summary["images_per_s"] > 0
    assert 0 <= summary["loader_wait"] <= 1
    assert list(pd.read_parquet(directory / "history.parquet").columns) == HISTORY


def test_val_metrics_are_those_of_the_loaded_network(fit, pixels, split):
    directory, summary = fit()
    vae = load_vae(directory).to(memory_format=torch.channels_last)
    table = pd.read_parquet(split / "split.parquet")
    rows = pixels.rows_of(table.loc[table["split"] == "val", "image"].tolist())
    image = to_device(pixels.read(rows), CPU)
    mu, logvar = vae.encoder(image)
    assert summary["val_l1"] == pytest.approx((vae.decoder(mu) - image).abs().mean().item())
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
    assert summary["val_kl_nats"] == pytest.approx(kl.item(), rel=1e-5)


def test_active_units_by_hand():
    mu = torch.tensor([[0.0, 1.0, 0.3], [0.0, 1.1, 0.0]])  # variances 0, 0.0025, 0.0225
    assert num_active_units(mu) == 1


@pytest.mark.parametrize(("which", "epoch"), [("best", 2), ("last", 3)])
def test_best_and_last_weights(fit, monkeypatch, which, epoch):
    short, _ = fit("short", CONFIG.model_copy(update={"epochs": epoch}), checkpoints="a")
    other, other_epoch = {"best": ("last", 3), "last": ("best", 2)}[which]
    second, _ = fit("other", CONFIG.model_copy(update={"epochs": other_epoch}), checkpoints="c")
    losses = iter([3.0, 1.0, 2.0])  # the second of three epochs is the best
    monkeypatch.setattr(
        "cxrmodel.training.vae.loop.validate", lambda *_: {"val_loss": next(losses)}
    )
    config = CONFIG.model_copy(update={"epochs": 3, "weights": which})
    directory, summary = fit("chosen", config, checkpoints="b")
    assert summary["published_epoch"] == epoch
    assert weights_of(directory) == weights_of(short)
    kept = (directory / f"vae_{other}.safetensors").read_bytes()
    assert kept == weights_of(second)
    assert not load_vae(directory, f"vae_{other}.safetensors").training


def test_a_lost_best_does_not_cost_a_training_whose_last_weights_count(fit, tmp_path, caplog):
    unbroken, _ = fit("unbroken", checkpoints="a")
    fit("again", checkpoints="b")
    (tmp_path / "b" / "best.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        again, _ = fit("again_without", checkpoints="b")
    assert "weights of the best epoch" in caplog.text
    assert weights_of(again) == weights_of(unbroken)
    assert not (again / "vae_best.safetensors").exists()
