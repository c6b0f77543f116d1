import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DivergedError
from cxrmodel.training import checkpoints
from cxrmodel.training.checkpoints import CheckpointFolder

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)


def weights_of(directory: Path) -> bytes:
    return (directory / "vae.safetensors").read_bytes()


class Interruption(BaseException):
    """What a cancelled flow raises is no Exception either."""


def raise_at(step):
    def report(progress):
        if progress.done >= step:
            raise Interruption

    return report


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


def count_threads(monkeypatch, device_cores=8):
    monkeypatch.setattr("cxrmodel.training.vae.fit.usable_cores", lambda: device_cores)
    used = []
    return used, lambda _: used.append(torch.get_num_threads())


def test_a_resumed_training_computes_with_the_threads_it_began_with(
    fit, report_every_step, monkeypatch
):
    used, note = count_threads(monkeypatch)
    with pytest.raises(Interruption):
        fit("broken", checkpoints="b", report=raise_at(3), num_threads=2)
    fit("broken", checkpoints="b", report=note)  # where one thread computes by default
    assert set(used) == {2}
    assert torch.get_num_threads() == 1


def test_a_number_of_threads_that_is_asked_for_counts_more_than_the_checkpoint(
    fit, report_every_step, monkeypatch
):
    used, note = count_threads(monkeypatch)
    with pytest.raises(Interruption):
        fit("broken", checkpoints="b", report=raise_at(3), num_threads=2)
    fit("broken", checkpoints="b", report=note, num_threads=3)
    assert set(used) == {3}


def test_no_more_threads_than_cores_after_a_move_to_a_smaller_machine(
    fit, report_every_step, monkeypatch, caplog
):
    used, note = count_threads(monkeypatch, device_cores=1)
    with pytest.raises(Interruption):
        fit("broken", checkpoints="b", report=raise_at(3), num_threads=2)
    fit("broken", checkpoints="b", report=note)
    assert set(used) == {1}
    assert "computed by 2 threads, and this process may use 1 cores" in caplog.text


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_inside_the_optimiser_is_not_taken_for_one_before_it(
    fit, monkeypatch, when
):
    unbroken, _ = fit("unbroken", checkpoints="a")
    original, calls = torch.optim.AdamW.step, []

    def step(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == 3 and when == "before":
            raise Interruption
        original(self, *args, **kwargs)
        if len(calls) == 3:
            raise Interruption

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        with pytest.raises(Interruption):
            fit("broken", checkpoints="b")
    resumed, _ = fit("broken", checkpoints="b")
    assert weights_of(resumed) == weights_of(unbroken)


def test_a_finished_training_only_publishes_again(fit):
    first, summary = fit("first")
    done = []
    second, again = fit("second", report=lambda progress: done.append(progress.done))
    assert done == []
    assert again == summary
    assert weights_of(first) == weights_of(second)


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"kl_weight": 0.5}, {"precision": "bfloat16"}])
def test_a_checkpoint_of_other_settings_is_not_used(fit, caplog, change):
    fit("first", checkpoints="shared")
    config = CONFIG.model_copy(update=change)
    with caplog.at_level(logging.WARNING):
        second, _ = fit("second", config, checkpoints="shared")
    assert "other settings or data" in caplog.text
    fresh, _ = fit("fresh", config, checkpoints="own")
    assert weights_of(second) == weights_of(fresh)


def test_a_checkpoint_of_another_network_is_not_used(fit, caplog, monkeypatch):
    fit("first", checkpoints="shared")
    monkeypatch.setattr("cxrmodel.models.vae.CHANNELS", (1, 4, 4, 8, 8, 8, 16))
    with caplog.at_level(logging.WARNING):
        second, _ = fit("second", checkpoints="shared")
    assert "other settings or data" in caplog.text
    fresh, _ = fit("fresh", checkpoints="own")
    assert weights_of(second) == weights_of(fresh)


def test_a_checkpoint_of_other_images_is_not_used(fit, pixels, caplog):
    fit("first", checkpoints="shared")
    pixels.images = 255 - pixels.images
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


def test_divergence_is_named_and_spares_the_last_good_checkpoint(fit, tmp_path, pixels):
    good = CONFIG.model_copy(update={"lr": 1e6, "epochs": 5})
    with pytest.raises(DivergedError, match="There is no checkpoint yet"):
        fit(config=good, checkpoints="never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        ({"lr": 1e20}, ["Lower vae.lr (the learning rate is 1e+20)", "set vae.max_grad_norm to 1"]),
        ({"lr": 1e20, "max_grad_norm": 1}, ["Lower vae.lr (the learning rate is 1e+20)"]),
        (
            {"lr": 1e20, "max_grad_norm": 1, "precision": "bfloat16"},
            ["Lower vae.lr (the learning rate is 1e+20)", "set vae.precision to float32"],
        ),
        (
            {"kl_weight": 1e39, "max_grad_norm": 1},
            ["Lower vae.lr (the learning rate is 0.001)", "lower vae.kl_weight (now 1e+39)"],
        ),
    ],
)
def test_a_divergence_names_the_remedies_that_are_left(fit, settings, remedies):
    with pytest.raises(DivergedError) as raised:
        fit(config=CONFIG.model_copy(update={"epochs": 8, **settings}))
    *_, last = str(raised.value).split(". ")
    given = last.removesuffix(".").split(", or ")
    assert [one.partition(" (now bf")[0].partition(", which")[0] for one in given] == remedies


def test_a_rate_that_was_not_given_is_not_called_so(fit, monkeypatch):
    monkeypatch.setattr("cxrmodel.training.vae.auto_settings.largest_batch", lambda *_: 4)
    config = CONFIG.model_copy(update={"lr": 1e20, "batch_size": "auto"})
    with pytest.raises(DivergedError, match=r"Lower vae\.lr \(the learning rate is 2e\+20\)"):
        fit(config=config)


def test_divergence_names_the_last_good_checkpoint(fit, tmp_path, monkeypatch, report_every_step):
    original, calls = torch.optim.AdamW.step, []

    def step(self, *args, **kwargs):
        original(self, *args, **kwargs)
        calls.append(None)
        if len(calls) == 6:  # in the second epoch
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
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
    def refuse(self, checkpoint, **_):
        raise OSError("disk is gone")

    monkeypatch.setattr(CheckpointFolder, "save", refuse)
    monkeypatch.setattr("cxrmodel.training.speed.REPORT_EVERY_S", 0.0)
    with caplog.at_level(logging.WARNING), pytest.raises(Interruption):
        fit(report=raise_at(2))
    assert "No checkpoint could be left: disk is gone" in caplog.text


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


class Death(BaseException):
    """What is raised in the place of a kill: by one operation on the disk, and all after it."""


class Disk:
    """Counts what training does to its checkpoints' folder, and dies before one operation."""

    OPERATIONS = (
        (Path, "replace"),
        (Path, "unlink"),
        (os, "fsync"),
        (checkpoints, "save_file"),
    )

    def __init__(self, monkeypatch, dies_before=None):
        self.done, self._dies_before = 0, dies_before
        for owner, name in self.OPERATIONS:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, operation):
        def counted(*args, **kwargs):
            if self.done == self._dies_before:
                raise Death
            self.done += 1
            return operation(*args, **kwargs)

        return counted


def test_a_death_before_any_operation_on_the_disk_changes_nothing(fit, monkeypatch):
    config = VAEConfig(
        epochs=2, batch_size=7, latent_dim=4, lr=1e-3, weights="best", checkpoint_every_s=1e-6
    )
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        unbroken, _ = fit("unbroken", config, checkpoints="unbroken-c")
    assert disk.done > 30
    for number in range(disk.done):
        with monkeypatch.context() as patch:
            Disk(patch, dies_before=number)
            with pytest.raises(Death):
                fit("broken", config, checkpoints=f"c-{number}")
        resumed, _ = fit("broken", config, checkpoints=f"c-{number}")
        for name in ("vae.safetensors", "vae_last.safetensors", "history.parquet"):
            assert (resumed / name).read_bytes() == (unbroken / name).read_bytes(), number
