import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DamagedArtifactError, DataError, DivergedError
from cxrmodel.training.batches import to_device
from cxrmodel.training.checkpoints import CheckpointFolder
from cxrmodel.training.vae import fit_vae, load_vae
from cxrmodel.training.vae_validation import num_active_units

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)
CPU = torch.device("cpu")
HISTORY = [
    "epoch",
    "step",
    "train_l1",
    "train_kl_nats",
    "train_loss",
    "val_l1",
    "val_kl_nats",
    "val_kl_nats_per_dim",
    "val_loss",
    "active_units",
]


@pytest.fixture
def fit(tmp_path, films, split):
    """Train the films into a folder, with checkpoints beside it."""

    def run(name="vae", config=CONFIG, pixels=films, checkpoints="checkpoints", **options):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        folder = tmp_path / checkpoints
        summary = fit_vae(
            config, pixels, split, directory, checkpoints=folder, device="cpu", **options
        )
        return directory, summary

    return run


class Interruption(BaseException):
    """What a cancelled flow raises is no Exception either."""


def raise_at(step):
    def report(progress):
        if progress.done >= step:
            raise Interruption

    return report


def weights_of(directory: Path) -> bytes:
    return (directory / "vae.safetensors").read_bytes()


@pytest.fixture
def report_every_step(monkeypatch):
    monkeypatch.setattr("cxrmodel.training.vae_training.REPORT_EVERY_S", 0.0)


def test_a_run_publishes_weights_config_and_history(fit):
    directory, summary = fit()
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "history.parquet",
        "vae.safetensors",
    ]
    history = pd.read_parquet(directory / "history.parquet")
    assert list(history.columns) == HISTORY
    assert history["epoch"].tolist() == [1, 2]
    assert history["step"].tolist() == [4, 8]  # 14 train images in batches of 4
    np.testing.assert_allclose(
        history["train_loss"], history["train_l1"] + 1e-3 * history["train_kl_nats"] / 4
    )
    np.testing.assert_allclose(history["val_kl_nats_per_dim"], history["val_kl_nats"] / 4)
    config = json.loads((directory / "config.json").read_text())
    assert config["architecture"] == {"image_size": 64, "latent_dim": 4}
    assert (config["precision"], config["device"], config["seed"]) == ("float32", "cpu", 42)
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


@pytest.mark.parametrize("step", [1, 3, 4, 6, 8])
def test_interrupted_and_resumed_equals_unbroken(fit, report_every_step, step, tmp_path):
    unbroken, _ = fit("unbroken", checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", checkpoints="b", report=raise_at(step))
    done = []
    resumed, _ = fit("broken", checkpoints="b", report=lambda p: done.append(p.done))
    assert min(done, default=8) >= step  # the finished steps were not repeated
    for name in ("vae.safetensors", "history.parquet", "config.json"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


def test_bfloat16_resumes_to_the_bit_too(fit, report_every_step):
    config = CONFIG.model_copy(update={"precision": "bfloat16"})
    unbroken, summary = fit("unbroken", config, checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", config, checkpoints="b", report=raise_at(5))
    resumed, _ = fit("broken", config, checkpoints="b")
    assert summary["precision"] == "bfloat16"
    assert weights_of(resumed) == weights_of(unbroken)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_inside_the_optimiser_is_told_from_one_before_it(fit, monkeypatch, when):
    unbroken, _ = fit("unbroken", checkpoints="a")
    original, calls = torch.optim.Adam.step, []

    def step(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == 3 and when == "before":
            raise Interruption
        original(self, *args, **kwargs)
        if len(calls) == 3:
            raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", step)
        with pytest.raises(Interruption):
            fit("broken", checkpoints="b")
    resumed, _ = fit("broken", checkpoints="b")
    assert weights_of(resumed) == weights_of(unbroken)


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import NARROW, draw_films, write_split
import torch
from cxrmodel.config import VAEConfig
from cxrmodel.training.vae import fit_vae
import cxrmodel.models.vae as network
import cxrmodel.training.vae_training as loop
torch.set_num_threads(1)
network.CHANNELS = NARROW
loop.REPORT_EVERY_S = 0.0
root, films = Path(sys.argv[2]), draw_films(24)
(root / "killed").mkdir(exist_ok=True)
fit_vae(VAEConfig.model_validate_json(sys.argv[3]), films, write_split(root / "split", films),
        root / "killed", checkpoints=root / "c", device="cpu",
        report=lambda progress: print(progress.done, flush=True))
"""


def start_training(tmp_path, config):
    arguments = [Path(__file__).parent, tmp_path, config.model_dump_json()]
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_killed_and_started_again_equals_unbroken(fit, tmp_path):
    config = CONFIG.model_copy(update={"epochs": 6, "checkpoint_every_s": 1e-6})
    unbroken, _ = fit("unbroken", config, checkpoints="a")
    for _ in range(2):
        process = start_training(tmp_path, config)
        for _ in range(random.randint(1, 5)):  # the instant is meant to differ from run to run
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    process = start_training(tmp_path, config)
    process.communicate()
    assert process.returncode == 0
    assert weights_of(tmp_path / "killed") == weights_of(unbroken)
    assert (tmp_path / "killed" / "history.parquet").read_bytes() == (
        unbroken / "history.parquet"
    ).read_bytes()


def test_a_finished_training_only_publishes_again(fit):
    first, summary = fit("first")
    done = []
    second, again = fit("second", report=lambda progress: done.append(progress.done))
    assert done == []
    assert again == summary
    assert weights_of(first) == weights_of(second)


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"kl_weight": 0.5}, {"precision": "bfloat16"}])
def test_a_checkpoint_of_other_settings_is_not_gone_on_from(fit, caplog, change):
    fit("first", checkpoints="shared")
    config = CONFIG.model_copy(update=change)
    with caplog.at_level(logging.WARNING):
        second, _ = fit("second", config, checkpoints="shared")
    assert "other settings or data" in caplog.text
    fresh, _ = fit("fresh", config, checkpoints="own")
    assert weights_of(second) == weights_of(fresh)


def test_a_checkpoint_of_other_images_is_not_gone_on_from(fit, films, caplog):
    fit("first", checkpoints="shared")
    films.images = 255 - films.images
    with caplog.at_level(logging.WARNING):
        fit("second", checkpoints="shared")
    assert "other settings or data" in caplog.text


def test_a_damaged_last_checkpoint_costs_one_interval(fit, tmp_path, caplog, report_every_step):
    unbroken, _ = fit("unbroken", checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", checkpoints="b", report=raise_at(6))
    last = tmp_path / "b" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-10])
    with caplog.at_level(logging.WARNING):
        resumed, _ = fit("broken", checkpoints="b")
    assert "it is damaged" in caplog.text
    assert weights_of(resumed) == weights_of(unbroken)


def test_divergence_is_named_and_spares_the_last_good_checkpoint(fit, tmp_path, films):
    good = CONFIG.model_copy(update={"lr": 1e6, "epochs": 5})
    with pytest.raises(DivergedError, match=r"Lower vae.lr \(now 1e\+06\), or set vae.precision"):
        fit(config=good, checkpoints="never")
    assert not (tmp_path / "never").exists()


def test_divergence_names_the_last_good_checkpoint(fit, tmp_path, monkeypatch, report_every_step):
    original, calls = torch.optim.Adam.step, []

    def step(self, *args, **kwargs):
        original(self, *args, **kwargs)
        calls.append(None)
        if len(calls) == 6:  # in the second epoch
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(DivergedError, match=r"last good checkpoint, of step 5, is .*last"):
        fit(config=CONFIG.model_copy(update={"checkpoint_every_s": 1e-6}))
    (header,) = [
        json.loads(
            json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"][
                "checkpoint"
            ]
        )
        for content in [(tmp_path / "checkpoints" / "last.safetensors").read_bytes()]
    ]
    assert header["step"] == 5
    for tensor in load_file(tmp_path / "checkpoints" / "last.safetensors").values():
        assert tensor.isfinite().all()


def test_a_failed_rescue_does_not_hide_what_interrupted(fit, monkeypatch, caplog):
    def refuse(self, checkpoint):
        raise OSError("disk is gone")

    monkeypatch.setattr(CheckpointFolder, "save", refuse)
    monkeypatch.setattr("cxrmodel.training.vae_training.REPORT_EVERY_S", 0.0)
    with caplog.at_level(logging.WARNING), pytest.raises(Interruption):
        fit(report=raise_at(2))
    assert "No checkpoint could be left: disk is gone" in caplog.text


@pytest.mark.parametrize(("which", "epoch"), [("best", 2), ("last", 3)])
def test_best_and_last_weights(fit, monkeypatch, which, epoch):
    short, _ = fit("short", CONFIG.model_copy(update={"epochs": epoch}), checkpoints="a")
    losses = iter([3.0, 1.0, 2.0])  # the second of three epochs is the best
    monkeypatch.setattr(
        "cxrmodel.training.vae_training.validate", lambda *_: {"val_loss": next(losses)}
    )
    config = CONFIG.model_copy(update={"epochs": 3, "weights": which})
    directory, summary = fit("chosen", config, checkpoints="b")
    assert summary["published_epoch"] == epoch
    assert weights_of(directory) == weights_of(short)


def test_the_best_weights_survive_an_interruption(fit, report_every_step):
    config = CONFIG.model_copy(update={"weights": "best"})
    unbroken, _ = fit("unbroken", config, checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", config, checkpoints="b", report=raise_at(6))
    resumed, _ = fit("broken", config, checkpoints="b")
    assert weights_of(resumed) == weights_of(unbroken)


def test_lost_best_weights_start_training_afresh(fit, tmp_path, caplog, report_every_step):
    config = CONFIG.model_copy(update={"weights": "best"})
    unbroken, _ = fit("unbroken", config, checkpoints="a")
    with pytest.raises(Interruption):
        fit("broken", config, checkpoints="b", report=raise_at(6))
    (tmp_path / "b" / "best.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        resumed, _ = fit("broken", config, checkpoints="b")
    assert "weights of the best epoch" in caplog.text
    assert weights_of(resumed) == weights_of(unbroken)


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


def test_progress_is_told(fit, report_every_step):
    told = []
    fit(report=told.append)
    assert {(progress.stage, progress.total, progress.unit) for progress in told} == {
        ("vae", 8, "steps")
    }
    steps = [progress.done for progress in told]
    assert steps == sorted(steps)
    assert steps[-1] == 8
    assert {"l1", "kl_nats", "images_per_s"} <= set(told[0].metrics)
    assert {"val_l1", "val_loss", "active_units"} <= set(told[-1].metrics)


def test_the_loaded_network_is_the_trained_one(fit, films, monkeypatch):
    directory, _ = fit()
    vae = load_vae(directory)
    assert not vae.training
    assert not any(weight.requires_grad for weight in vae.parameters())
    published = load_file(directory / "vae.safetensors")
    for name, weight in vae.state_dict().items():
        assert torch.equal(weight, published[name])


def test_val_metrics_are_those_of_the_loaded_network(fit, films, split):
    directory, summary = fit()
    vae = load_vae(directory).to(memory_format=torch.channels_last)
    table = pd.read_parquet(split / "split.parquet")
    rows = films.rows_of(table.loc[table["split"] == "val", "image"].tolist())
    image = to_device(films.read(rows), CPU)
    mu, logvar = vae.encoder(image)
    assert summary["val_l1"] == pytest.approx((vae.decoder(mu) - image).abs().mean().item())
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(dim=1).mean()
    assert summary["val_kl_nats"] == pytest.approx(kl.item(), rel=1e-5)


def test_active_units_by_hand():
    mu = torch.tensor([[0.0, 1.0, 0.3], [0.0, 1.1, 0.0]])  # variances 0, 0.0025, 0.0225
    assert num_active_units(mu) == 1


def test_missing_weights_are_an_error_not_random_ones(fit):
    directory, _ = fit()
    (directory / "vae.safetensors").unlink()
    with pytest.raises(DamagedArtifactError, match=r"vae\.safetensors cannot be read as weights"):
        load_vae(directory)


def test_weights_of_another_network_are_refused(fit):
    directory, _ = fit()
    config = json.loads((directory / "config.json").read_text())
    config["architecture"]["latent_dim"] = 5
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(DamagedArtifactError, match=r"float32 \(4, 8\) instead of float32 \(5, 8\)"):
        load_vae(directory)


def test_missing_and_unknown_tensors_are_named(fit):
    directory, _ = fit()
    state = load_file(directory / "vae.safetensors")
    state["stranger"] = state.pop("encoder.to_mu.bias")
    save_file(state, directory / "vae.safetensors")
    with pytest.raises(
        DamagedArtifactError, match=r"encoder\.to_mu\.bias is missing; stranger is unknown"
    ):
        load_vae(directory)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"architecture": {"image_size": 64}}'])
def test_a_config_that_describes_no_network_is_refused(fit, content):
    directory, _ = fit()
    if content is None:
        (directory / "config.json").unlink()
    else:
        (directory / "config.json").write_text(content)
    with pytest.raises(DamagedArtifactError, match=r"config\.json does not describe a network"):
        load_vae(directory)


def test_an_impossible_size_in_the_config_is_refused(fit):
    directory, _ = fit()
    (directory / "config.json").write_text('{"architecture": {"image_size": 65, "latent_dim": 4}}')
    with pytest.raises(DamagedArtifactError, match="image_size must be a positive multiple of 64"):
        load_vae(directory)
