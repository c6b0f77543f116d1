import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from cxrmodel.config import LatentsConfig, VAEConfig
from cxrmodel.errors import DamagedArtifactError, DataError
from cxrmodel.training import latents as stage
from cxrmodel.training.encoding import image_quality, load_vae, reconstruct
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae

pytestmark = pytest.mark.gpu

COLUMNS = [
    "image", "split",
    "mu_00", "mu_01", "mu_02",
    "logvar_00", "logvar_01", "logvar_02",
    "l1", "psnr", "ssim", "ms_ssim",
]  # fmt: skip


@pytest.fixture
def vae(tmp_path, pixels, split, device):
    directory = tmp_path / "vae"
    directory.mkdir()
    config = VAEConfig(epochs=2, batch_size=4, latent_dim=3, lr=1e-2)
    fit_vae(config, pixels, split, directory, checkpoints=tmp_path / "checkpoints", device=device)
    return directory


@pytest.fixture
def extract(tmp_path, pixels, split, vae, monkeypatch, device):
    monkeypatch.setattr(stage, "PART_IMAGES", 5)

    def run(
        name="latents", batch_size=1, precision="float32", pixels=pixels, parts="parts", **more
    ):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        config = LatentsConfig(batch_size=batch_size, precision=precision)
        summary = extract_latents(
            config, vae, pixels, split, directory, parts=tmp_path / parts, device=device, **more
        )
        return directory / "latents.parquet", summary

    return run


def test_a_row_per_image_in_the_splits_order(extract, split):
    path, summary = extract()
    table = pd.read_parquet(path)
    expected = pd.read_parquet(split / "split.parquet")
    assert list(table.columns) == COLUMNS
    assert (table[["image", "split"]] == expected).all(axis=None)
    assert set(table.dtypes[2:]) == {np.dtype("float32")}
    assert summary["num_images"] == len(expected)
    assert summary["l1"] == pytest.approx(table["l1"].mean())
    assert summary["psnr"] == pytest.approx(table["psnr"].mean())


def test_the_values_are_those_of_the_network(extract, pixels, vae, near_the_cpu):
    path, _ = extract(batch_size=4)
    table, network = pd.read_parquet(path), load_vae(vae)
    image = torch.from_numpy(pixels.images).float().div(255).unsqueeze(1)
    mu, logvar = network.encoder(image)
    error = (network.decoder(mu) - image).flatten(1)
    np.testing.assert_allclose(table[COLUMNS[2:5]], mu, **near_the_cpu)
    np.testing.assert_allclose(table[COLUMNS[5:8]], logvar, **near_the_cpu)
    np.testing.assert_allclose(table["l1"], error.abs().mean(1), **near_the_cpu)
    psnr = -10 * error.square().mean(1).log10()
    np.testing.assert_allclose(table["psnr"], psnr, **near_the_cpu)


def test_only_test_images_are_scored_for_similarity(extract, pixels, vae):
    path, _ = extract(batch_size=4)
    table, network = pd.read_parquet(path), load_vae(vae)
    rows = table.index[table["split"] == "test"]
    assert table["ssim"].notna().tolist() == (table["split"] == "test").tolist()
    assert table["ms_ssim"].isna().all()  # 64 px do not hold five scales
    image = torch.from_numpy(pixels.images[rows]).float().div(255).unsqueeze(1)
    expected = structural_similarity_index_measure(
        network.decoder(network.encoder(image)[0]), image, data_range=1.0, reduction="none"
    )
    np.testing.assert_allclose(table.loc[rows, "ssim"], expected.detach(), rtol=1e-3)


def test_the_batch_size_does_not_matter(extract):
    one, four = (
        pd.read_parquet(extract(f"of {size}", batch_size=size)[0]).iloc[:, 2:] for size in (1, 4)
    )
    np.testing.assert_allclose(one, four, rtol=1e-4, atol=1e-6)


def test_bfloat16_is_near_float32(extract):
    exact, rounded = (
        pd.read_parquet(extract(precision, precision=precision)[0])
        for precision in ("float32", "bfloat16")
    )
    np.testing.assert_allclose(exact["l1"], rounded["l1"], rtol=0.02)
    assert not np.array_equal(exact["mu_00"], rounded["mu_00"])


class Interrupting:
    """Pixels that can be read only so many times."""

    def __init__(self, pixels, num_reads):
        self.size, self.names = pixels.size, pixels.names
        self.rows_of, self._pixels, self.num_reads = pixels.rows_of, pixels, num_reads

    def read(self, rows):
        self.num_reads -= 1
        if self.num_reads < 0:
            raise OSError("the disk is gone")
        return self._pixels.read(rows)


@pytest.mark.parametrize("num_reads", [0, 3, 4, 7])
def test_broken_off_and_resumed_equals_unbroken(extract, pixels, num_reads):
    unbroken, summary = extract("unbroken", batch_size=2, parts="a")
    with pytest.raises(OSError, match="the disk is gone"):
        extract("broken", batch_size=2, pixels=Interrupting(pixels, num_reads), parts="b")
    rest = Interrupting(pixels, 15 - num_reads // 3 * 3)  # 5 parts of 3 batches; whole ones count
    resumed, again = extract("broken", batch_size=2, pixels=rest, parts="b")
    assert resumed.read_bytes() == unbroken.read_bytes()
    assert again == summary


def test_a_damaged_part_is_made_again(extract, tmp_path):
    first, _ = extract("first")
    part = sorted((tmp_path / "parts").rglob("*.parquet"))[1]
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    second, _ = extract("second")
    assert second.read_bytes() == first.read_bytes()


def test_parts_of_another_network_are_not_used(extract, vae, tmp_path, pixels, split, device):
    first, _ = extract("first")
    shutil.rmtree(tmp_path / "checkpoints")
    config = VAEConfig(epochs=1, batch_size=4, latent_dim=3, seed=1)
    fit_vae(config, pixels, split, vae, checkpoints=tmp_path / "checkpoints", device=device)
    second, _ = extract("second")
    fresh, _ = extract("fresh", parts="other")
    assert second.read_bytes() == fresh.read_bytes() != first.read_bytes()


def test_progress_is_reported(extract, monkeypatch):
    monkeypatch.setattr("cxrmodel.training.speed.REPORT_EVERY_S", 0.0)
    told = []
    extract(batch_size=2, report=told.append)
    assert [progress.done for progress in told] == [
        2, 4, 5, 7, 9, 10, 12, 14, 15, 17, 19, 20, 22, 24,
    ]  # fmt: skip
    assert {(progress.stage, progress.total, progress.unit) for progress in told} == {
        ("latents", 24, "images")
    }


def test_an_empty_split_is_refused(extract, split):
    table = pd.read_parquet(split / "split.parquet")
    table.iloc[:0].to_parquet(split / "split.parquet", index=False)
    with pytest.raises(DataError, match="has no image"):
        extract()


def test_images_of_another_size_are_refused(extract, pixels):
    pixels.size = 128
    with pytest.raises(ValueError, match="trained on images of 64 px, and these have 128 px"):
        extract()


def test_a_missing_network_is_named(extract, vae):
    (vae / "vae.safetensors").unlink()
    with pytest.raises(DamagedArtifactError, match=r"vae\.safetensors cannot be read"):
        extract()


def test_image_quality_by_hand():
    image = torch.zeros(2, 1, 1, 2)
    quality = image_quality(torch.tensor([[[[0.1, 0.3]]], [[[1.0, 1.0]]]]), image)
    assert quality.l1.tolist() == pytest.approx([0.2, 1.0])
    assert quality.psnr.tolist() == pytest.approx([-10 * math.log10(0.05), 0.0])


def test_reconstructions_are_decoded_from_mu(vae, pixels, device):
    network = load_vae(vae)
    pictures = reconstruct(network, pixels.images[:6], device=device)
    assert (pictures.shape, pictures.dtype) == ((6, 64, 64), np.float32)
    image = torch.from_numpy(pixels.images[:6]).float().div(255).unsqueeze(1)
    network = load_vae(vae)  # on the CPU
    expected = network.decoder(network.encoder(image)[0]).squeeze(1)
    np.testing.assert_allclose(pictures, expected, rtol=1e-4, atol=1e-6)
