"""The latents stage: the posterior of every image of the split, and how well it reconstructs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cxrmodel.config import LatentsConfig
from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.errors import DataError
from cxrmodel.models.similarity import structural_similarity
from cxrmodel.models.vae import VAE
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.layout import LATENTS_FILE, SPLIT_FILE, VAE_WEIGHTS_FILE
from cxrmodel.training.batches import MORE_DATA, in_batches, read_split
from cxrmodel.training.devices import (
    deterministic_kernels,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from cxrmodel.training.encoding import (
    Coder,
    image_quality,
    load_vae,
    reconstruct,
)
from cxrmodel.training.parts import TableInParts

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

__all__ = ["extract_latents", "latent_columns", "reconstruct"]

PART_IMAGES = 1024
QUALITY = ("l1", "psnr", "ssim", "ms_ssim")
REPORT_EVERY_S = 1.0

EncodedParts = Iterator[tuple[range, pa.Table]]


def latent_columns(moment: str, latent_dim: int) -> list[str]:
    """Name the columns of `mu` or `logvar`: `mu_00`, `mu_01` and so on."""
    return [f"{moment}_{dim:02d}" for dim in range(latent_dim)]


def extract_latents(
    config: LatentsConfig,
    vae: Path,
    pixels: Pixels,
    split: Path,
    directory: Path,
    *,
    parts: Path,
    encoder: PartEncoder | None = None,
    device: str = "auto",
    report: ReportProgress = silent,
) -> dict[str, Any]:
    """Encode every image of the split, and measure its reconstruction from the posterior mean.

    Memory does not grow with the number of images. Finished parts are kept, so that a killed
    extraction goes on where it was. Structural similarity costs as much as the rest of an image's
    work, and the report judges by test images: it is measured for those alone.

    Args:
        config: Batch size and precision.
        vae: Folder of the vae stage.
        pixels: The images.
        split: Folder of the split stage.
        directory: Where `latents.parquet` goes: a row per image, in the split's order. `ssim` and
            `ms_ssim` are null outside test, and `ms_ssim` for images of less than 161 px a side.
        parts: Folder for finished parts, kept from one attempt to the next.
        encoder: What encodes them; by default this process, on `device`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        report: Told how many images are done.

    Returns:
        Number of images, and the means of L1 and PSNR over them.

    Raises:
        ValueError: There is no such device, or the images have another side than the network.
        DataError: The split is empty, or an image has no pixels.
        DamagedArtifactError: The network's files are damaged.
    """
    network, images = load_vae(vae), read_split(split)
    _check_fit(network, pixels, images, split)
    if encoder is None:
        encoder = _encoder_here(config, network, pixels, device, report)
    key = _key(config, encoder.precision, vae, images)
    table = TableInParts(parts / key, _schema(network.latent_dim), images["image"], PART_IMAGES)
    for rows, part in encoder.encode_parts(images, list(table.unfinished())):
        table.write(rows, part)
    table.concatenate(directory / LATENTS_FILE)
    means = table.means(["l1", "psnr"])
    arithmetic = {"precision": encoder.precision, "device": encoder.device}
    return {"num_images": len(images), **means, **arithmetic}


@dataclass(frozen=True)
class PartEncoder:
    """What encodes parts of the images, and in which arithmetic.

    Attributes:
        device: Its type, as in `cuda`.
        precision: Resolved arithmetic of the network.
        encode_parts: From the images and the rows of each part to the parts, each with its rows.
    """

    device: str
    precision: str
    encode_parts: Callable[[pd.DataFrame, list[range]], EncodedParts]


def _encoder_here(
    config: LatentsConfig, network: VAE, pixels: Pixels, device: str, report: ReportProgress
) -> PartEncoder:
    where = resolve_device(device)
    precision = resolve_precision(config.precision, where)
    coder = Coder(network, where, precision)
    extraction = Extraction(coder, pixels, config.batch_size, report)

    def encode_parts(images: pd.DataFrame, parts: list[range]) -> EncodedParts:
        with deterministic_kernels(where), keep_freed_memory(where):
            yield from extraction.encode_parts(images, parts)

    return PartEncoder(where.type, precision, encode_parts)


class Extraction:
    """The loop over batches, and what it tells of itself.

    Args:
        coder: The network, on its device.
        pixels: The images.
        batch_size: Images a batch.
        report: Told how many images are done.
    """

    def __init__(
        self, coder: Coder, pixels: Pixels, batch_size: int, report: ReportProgress = silent
    ) -> None:
        self._coder, self._pixels, self._batch_size = coder, pixels, batch_size
        self._report, self._reported_at, self._reported = report, time.monotonic(), 0

    def encode_parts(self, images: pd.DataFrame, parts: list[range]) -> EncodedParts:
        """Encode and score parts of the images one after another."""
        done = len(images) - sum(len(rows) for rows in parts)
        self._reported = done
        for rows in parts:
            tell = partial(self._tell, before=done, total=len(images))
            yield rows, self.measure(images.iloc[rows.start : rows.stop], tell)
            done += len(rows)

    def measure(
        self, images: pd.DataFrame, tell: Callable[[int], None] = lambda _: None
    ) -> pa.Table:
        """Encode and score some images, telling how many are done."""
        rows = self._pixels.rows_of(images["image"].tolist())
        is_test = in_batches((images["split"] == "test").to_numpy(), self._batch_size)
        measured = []
        with closing(iterate_batches(self._pixels, in_batches(rows, self._batch_size))) as batches:
            for number, ((_, pixels), judged) in enumerate(zip(batches, is_test, strict=True), 1):
                measured.append(self._measure_batch(pixels, judged))
                tell(min(number * self._batch_size, len(rows)))
        values = torch.cat(measured).cpu().numpy()  # (N, 2 Z + 4)
        columns = [images[name].tolist() for name in ("image", "split")]
        return pa.Table.from_arrays(
            [
                *(pa.array(column, pa.string()) for column in columns),
                *(pa.array(column, from_pandas=True) for column in values.T),  # NaN is null
            ],
            schema=_schema((values.shape[1] - len(QUALITY)) // 2),
        )

    def _measure_batch(self, pixels: NDArray[np.uint8], judged: NDArray[np.bool_]) -> torch.Tensor:
        image = self._coder.load(pixels)
        mu, logvar = self._coder.encode(image)
        reconstruction = self._coder.decode(mu)
        quality = image_quality(reconstruction, image)
        alike = torch.full((len(pixels), 2), torch.nan, device=mu.device)
        if judged.any():
            rows = torch.tensor(judged, device=mu.device)
            scores = structural_similarity(reconstruction[rows], image[rows])
            alike[rows] = torch.stack(scores, dim=1)
        return torch.cat([mu, logvar, torch.stack(quality, dim=1), alike], dim=1)

    def _tell(self, done_here: int, before: int, total: int) -> None:
        now, done = time.monotonic(), before + done_here
        if now - self._reported_at >= REPORT_EVERY_S or done == total:
            rate = (done - self._reported) / (now - self._reported_at)
            self._report(Progress("latents", done, total, metrics={"images_per_s": rate}))
            self._reported_at, self._reported = now, done


def _schema(latent_dim: int) -> pa.Schema:
    names = [*latent_columns("mu", latent_dim), *latent_columns("logvar", latent_dim), *QUALITY]
    texts = [("image", pa.string()), ("split", pa.string())]
    return pa.schema([*texts, *((name, pa.float32()) for name in names)])


def _check_fit(network: VAE, pixels: Pixels, images: pd.DataFrame, split: Path) -> None:
    if images.empty:
        raise DataError(f"{split / SPLIT_FILE} has no image. Use {MORE_DATA}.")
    if network.image_size != pixels.size:
        raise ValueError(
            f"The autoencoder was trained on images of {network.image_size} px, and these have "
            f"{pixels.size} px. Give both the same images.size."
        )


def _key(config: LatentsConfig, precision: str, vae: Path, images: pd.DataFrame) -> str:
    """Return the identity of an extraction: parts of another one are never mixed in."""
    with (vae / VAE_WEIGHTS_FILE).open("rb") as stream:
        weights = hashlib.file_digest(stream, "sha256").hexdigest()
    identity = [config.key_fields(), precision, weights, images.to_numpy().tolist()]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
