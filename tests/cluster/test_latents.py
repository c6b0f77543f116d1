from functools import partial
from pathlib import Path

import pytest
import torch

from cxrmodel.cluster.latents import EncodingJob, encoder_on_cluster
from cxrmodel.cluster.session import ClusterError, Workers, connected, divide
from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae

pytestmark = pytest.mark.integration

CONFIG = LatentsConfig(batch_size=3)


@pytest.fixture(scope="module")
def vae(prepared, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("vae")
    config = VAEConfig(epochs=1, batch_size=8, latent_dim=4)
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    fit_vae(config, prepared.open_pixels(), prepared.split, directory, checkpoints=checkpoints)
    return directory


def test_one_worker_two_workers_and_none_give_the_same_latents(
    cluster, prepared, vae, tmp_path, monkeypatch
):
    monkeypatch.setattr("cxrmodel.training.latents.PART_IMAGES", 7)
    written, told = {}, []
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number in (0, 1, 2):
        directory = tmp_path / str(number)
        directory.mkdir()
        job = EncodingJob(CONFIG, prepared.open_pixels, partial(Path, vae))
        workers = Workers(number, cpus=1, gpus=0)
        summary = extract_latents(
            CONFIG,
            vae,
            prepared.open_pixels(),
            prepared.split,
            directory,
            parts=directory / "parts",
            encoder=encoder_on_cluster(job, workers, told.append) if number else None,
            device="cpu",
        )
        written[number] = (directory / "latents.parquet").read_bytes()
    torch.set_num_threads(num_threads)
    assert written[0] == written[1] == written[2]
    assert summary["device"] == "cpu"
    assert (told[-1].done, told[-1].total) == (summary["num_images"],) * 2


def test_the_cluster_is_divided_among_the_workers(cluster):
    assert divide("auto", None) == Workers(1, cpus=2, gpus=0)
    assert divide("cpu", 2) == Workers(2, cpus=1, gpus=0)
    with pytest.raises(ClusterError, match="ray_workers is 3, and the cluster has 2 cores"):
        divide("cpu", 3)
    with pytest.raises(ClusterError, match=r"'cuda', and the Ray cluster has no GPU\. Set it to"):
        divide("cuda", None)


def test_a_cluster_that_is_not_there_is_a_named_error():
    with (
        pytest.raises(ClusterError, match=r"No Ray cluster at runtime.ray_address '127.0.0.1:1'"),
        connected("127.0.0.1:1"),
    ):
        pass
