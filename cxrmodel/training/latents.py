"""The latents stage: the posterior of every image of the split, and how well it reconstructs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrmodel.config import LatentsConfig
from cxrmodel.data.images.batches import iterate_batches
from cxrmodel.errors import DataError
from cxrmodel.models.similarity import structural_similarity
from cxrmodel.models.vae import VAE
from cxrmodel.progress import ReportProgress, silent
from cxrmodel.storage.layout import LATENTS_FILE, SPLIT_FILE, VAE_WEIGHTS_FILE
from cxrmodel.training.devices import (
    deterministic_kernels,
    keep_freed_memory,
    resolve_device,
    resolve_precision,
)
from cxrmodel.training.encoding import Coder, image_quality, load_vae
from cxrmodel.training.image_batches import MORE_DATA, in_batches, read_split
from cxrmodel.training.speed import ProgressMeter

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

PART_IMAGES = 1024
QUALITY = ("l1", "psnr", "ssim", "ms_ssim")

EncodedParts = Iterator[tuple[range, pa.Table]]


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
    extraction continues where it was. Structural similarity is measured for test images alone, by
    which the report judges: it costs as much as everything else that is done with an image.

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
        report: Called with the number of images that are done.

    Returns:
        Number of images, the means of L1 and PSNR over them, precision and device.

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
    """Encodes parts of the images, in this process or in others.

    Attributes:
        device: Type of the device, such as `cuda`.
        precision: Resolved arithmetic of the network.
        encode_parts: Takes the images and the rows of each part; yields the parts and their rows.
    """

    device: str
    precision: str
    encode_parts: Callable[[pd.DataFrame, list[range]], EncodedParts]


def _encoder_here(
    config: LatentsConfig, network: VAE, pixels: Pixels, device: str, report: ReportProgress
) -> PartEncoder:
    where = resolve_device(device)
    precision = resolve_precision(config.precision, where)
    measurement = LatentMeasurement(Coder(network, where, precision), pixels, config.batch_size)

    def encode_parts(images: pd.DataFrame, parts: list[range]) -> EncodedParts:
        done = len(images) - sum(len(rows) for rows in parts)
        meter = ProgressMeter("latents", len(images), "images", report)
        with deterministic_kernels(where), keep_freed_memory(where):
            for rows in parts:
                yield rows, measurement.measure(images.iloc[rows.start : rows.stop], meter, done)
                done += len(rows)

    return PartEncoder(where.type, precision, encode_parts)


class LatentMeasurement:
    """Encodes images and scores their reconstructions, batch by batch.

    Args:
        coder: The network, on its device.
        pixels: The images.
        batch_size: Images per batch.
    """

    def __init__(self, coder: Coder, pixels: Pixels, batch_size: int) -> None:
        self._coder, self._pixels, self._batch_size = coder, pixels, batch_size

    def measure(self, images: pd.DataFrame, meter: ProgressMeter, done: int = 0) -> pa.Table:
        """Return a row of latents and quality per image.

        Args:
            images: Columns `image` and `split`.
            meter: Reports the progress.
            done: Images that were done before.
        """
        rows = self._pixels.rows_of(images["image"].tolist())
        is_test = in_batches((images["split"] == "test").to_numpy(), self._batch_size)
        measured: list[Tensor] = []
        with closing(iterate_batches(self._pixels, in_batches(rows, self._batch_size))) as batches:
            for (_, pixels), is_scored in zip(meter.waiting(batches), is_test, strict=True):
                measured.append(self._measure_batch(pixels, is_scored))
                meter.count(len(pixels))
                done += len(pixels)
                if meter.is_due() or done == meter.total:
                    meter.tell(done)
        values = torch.cat(measured).cpu().numpy()  # (N, 2 Z + 4)
        columns = [images[name].tolist() for name in ("image", "split")]
        return pa.Table.from_arrays(
            [
                *(pa.array(column, pa.string()) for column in columns),
                *(pa.array(column, from_pandas=True) for column in values.T),  # NaN is null
            ],
            schema=_schema((values.shape[1] - len(QUALITY)) // 2),
        )

    @torch.inference_mode()
    def _measure_batch(self, pixels: NDArray[np.uint8], is_scored: NDArray[np.bool_]) -> Tensor:
        image = self._coder.load(pixels)
        mu, logvar = self._coder.encode(image)
        reconstruction = self._coder.decode(mu)
        quality = image_quality(reconstruction, image)
        similarity = torch.full((len(pixels), 2), torch.nan, device=mu.device)
        if is_scored.any():
            rows = torch.tensor(is_scored, device=mu.device)
            scores = structural_similarity(reconstruction[rows], image[rows])
            similarity[rows] = torch.stack(scores, dim=1)
        return torch.cat([mu, logvar, torch.stack(quality, dim=1), similarity], dim=1)


class TableInParts:
    """A long table whose rows are computed some at a time, each part a Parquet file.

    Args:
        directory: Folder of the parts; made when first written to.
        schema: Columns; one is `image`.
        images: (N,), names of the images, one per row.
        part_rows: Rows per part; the last may have fewer.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, images: pd.Series[str], part_rows: int
    ) -> None:
        self._directory, self._schema = directory, schema
        self._images = images.tolist()
        self._part_rows = part_rows

    def unfinished(self) -> Iterator[range]:
        """Yield the rows of each part that is missing or damaged."""
        for rows in self._parts():
            if not self._is_finished(rows):
                yield rows

    def write(self, rows: range, table: pa.Table) -> None:
        """Keep a finished part; it appears whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(rows)
        unfinished = path.with_suffix(".partial")
        pq.write_table(table, unfinished, compression="zstd", write_page_checksum=True)
        unfinished.replace(path)

    def concatenate(self, path: Path) -> None:
        """Write all parts as one file, a row group per part, one at a time in memory."""
        with pq.ParquetWriter(path, self._schema, compression="zstd") as writer:
            for rows in self._parts():
                writer.write_table(self._read(rows))

    def means(self, columns: list[str]) -> dict[str, float]:
        """Return the mean of some columns over all parts."""
        sums = dict.fromkeys(columns, 0.0)
        for rows in self._parts():
            table = self._read(rows)
            for column in columns:
                sums[column] += pc.sum(table[column].cast(pa.float64())).as_py()
        return {column: total / len(self._images) for column, total in sums.items()}

    def _parts(self) -> Iterator[range]:
        for start in range(0, len(self._images), self._part_rows):
            yield range(start, min(start + self._part_rows, len(self._images)))

    def _path(self, rows: range) -> Path:
        return self._directory / f"{rows.start:09d}.parquet"

    def _read(self, rows: range) -> pa.Table:
        return pq.read_table(self._path(rows), page_checksum_verification=True)

    def _is_finished(self, rows: range) -> bool:
        try:
            table = self._read(rows)
        except (OSError, pa.ArrowException):
            return False
        names = self._images[rows.start : rows.stop]
        return bool(table.schema.equals(self._schema)) and table["image"].to_pylist() == names


def _schema(latent_dim: int) -> pa.Schema:
    moments = [f"{moment}_{dim:02d}" for moment in ("mu", "logvar") for dim in range(latent_dim)]
    texts = [("image", pa.string()), ("split", pa.string())]
    return pa.schema([*texts, *((name, pa.float32()) for name in (*moments, *QUALITY))])


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
