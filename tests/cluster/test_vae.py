import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cxrmodel.cluster.session import Workers
from cxrmodel.cluster.vae import TrainingJob, fit_vae_on_cluster
from cxrmodel.config import VAEConfig
from cxrmodel.errors import DivergedError
from cxrmodel.training.vae.fit import fit_vae

pytestmark = pytest.mark.integration

# The last batch of an epoch has an odd number of images: the two workers' parts differ in size.
CONFIG = VAEConfig(epochs=2, batch_size=6, latent_dim=4, lr=1e-3, weights="best")
TWO = Workers(number=2, cpus=1, gpus=0)


def job_of(prepared, checkpoints, config=CONFIG, open_pixels=None):
    return TrainingJob(
        config, open_pixels or prepared.open_pixels, partial(Path, prepared.split), checkpoints
    )


def test_two_workers_train_as_one(cluster, prepared, tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = fit_vae(
        CONFIG, prepared.open_pixels(), prepared.split, alone, checkpoints=tmp_path / "a"
    )
    torch.set_num_threads(num_threads)
    told = []
    summary = fit_vae_on_cluster(
        job_of(prepared, tmp_path / "b"), TWO, together, scratch=tmp_path, report=told.append
    )
    assert sorted(path.name for path in together.iterdir()) == sorted(
        path.name for path in alone.iterdir()
    )
    weights = load_file(alone / "vae.safetensors")
    for name, weight in load_file(together / "vae.safetensors").items():
        np.testing.assert_allclose(weight, weights[name], atol=1e-4)
    histories = [pd.read_parquet(folder / "history.parquet") for folder in (alone, together)]
    by_dimension = [np.stack(history.pop("val_kl_nats_by_dim")) for history in histories]
    np.testing.assert_allclose(*by_dimension, rtol=1e-3, atol=1e-6)
    pd.testing.assert_frame_equal(*histories, rtol=1e-3)
    assert summary["step"] == expected["step"]
    assert told[-1].done == told[-1].total


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def be_parted():
    """What Ray does to the workers that are left, while they still train."""
    torch.distributed.destroy_process_group()


class Once:
    """Opens the pixels; to the first process that does, something happens in mid-training."""

    def __init__(self, happens, open_pixels, flag: Path) -> None:
        self._happens, self._open, self._flag = happens, open_pixels, flag

    def __call__(self):
        pixels = self._open()
        read, reads = pixels.read, []

        def read_as_it_happens(rows):
            reads.append(rows)
            if len(reads) == 8 and not self._flag.exists():
                self._flag.touch()
                self._happens()
            return read(rows)

        pixels.read = read_as_it_happens
        return pixels


@pytest.fixture(scope="module")
def undisturbed(cluster, prepared, tmp_path_factory):
    """The weights that two workers end with when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = job_of(prepared, folder / "checkpoints")
    fit_vae_on_cluster(job, TWO, folder, scratch=folder, report=lambda _: None)
    return (folder / "vae.safetensors").read_bytes()


@pytest.mark.parametrize("happens", [die, be_parted])
def test_workers_that_lose_each_other_start_again_and_continue(
    cluster, prepared, undisturbed, tmp_path, happens
):
    cluster.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    config = CONFIG.model_copy(update={"checkpoint_every_s": 1e-6})
    opener = Once(happens, prepared.open_pixels, tmp_path / "happened")
    job = job_of(prepared, tmp_path / "checkpoints", config, opener)
    fit_vae_on_cluster(job, TWO, tmp_path, scratch=tmp_path, report=lambda _: None)
    assert (tmp_path / "happened").exists()
    assert (tmp_path / "vae.safetensors").read_bytes() == undisturbed


def test_a_divergence_keeps_its_error(cluster, prepared, tmp_path):
    config = CONFIG.model_copy(update={"lr": 1e6, "epochs": 5})
    with pytest.raises(DivergedError, match=r"Lower vae\.lr"):
        fit_vae_on_cluster(
            job_of(prepared, tmp_path / "c", config),
            TWO,
            tmp_path,
            scratch=tmp_path,
            report=lambda _: None,
        )


class Cancelled(BaseException):
    """What a cancelled flow's signal raises; no Exception."""


def cancel(*_):
    raise Cancelled


class Slowly:
    """Opens pixels that take their time, so that a training can be caught in the middle."""

    def __init__(self, open_pixels) -> None:
        self._open = open_pixels

    def __call__(self):
        pixels = self._open()
        read = pixels.read

        def read_slowly(rows):
            time.sleep(0.5)
            return read(rows)

        pixels.read = read_slowly
        return pixels


def test_a_cancelled_training_stops_with_a_checkpoint_and_continues(
    cluster, prepared, undisturbed, tmp_path
):
    cluster.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    told, went_on = [], []

    def cancel_early(progress):
        told.append(progress)
        if len(told) == 1:
            os.kill(os.getpid(), signal.SIGALRM)

    def train(open_pixels, report):
        job = job_of(prepared, tmp_path / "checkpoints", open_pixels=open_pixels)
        return fit_vae_on_cluster(job, TWO, tmp_path, scratch=tmp_path, report=report)

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        with pytest.raises(Cancelled):
            train(Slowly(prepared.open_pixels), cancel_early)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert 0 < told[0].done < told[0].total
    assert not (tmp_path / "vae.safetensors").exists()
    assert (tmp_path / "checkpoints" / "last.safetensors").exists()
    train(prepared.open_pixels, went_on.append)
    assert went_on[0].done > told[0].done
    assert (tmp_path / "vae.safetensors").read_bytes() == undisturbed
