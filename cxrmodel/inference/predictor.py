"""The model of a bundle at work on images: the networks and the pixel path of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.bundle import Bundle, mahalanobis, read_bundle
from cxrmodel.inference.calibration import calibrated
from cxrmodel.inference.gate import MEANINGS, Gate
from cxrmodel.inference.image_files import (
    BundlePreprocessing,
    ReadBytes,
    ReadImage,
    expand,
    read_images,
)
from cxrmodel.inference.sharpness import sharpness
from cxrmodel.models.classifier import Classifier
from cxrmodel.models.vae import VAE
from cxrmodel.training.devices import keeping_memory, resolve_device
from cxrmodel.training.encoding import Coder, image_quality
from cxrmodel.training.image_batches import in_batches

BATCH_PIXELS = 8 * 1024**2
MIN_BATCH, MAX_BATCH = 8, 64
TIMES_ON_GPU = 4  # as many; fewer would not keep it busy
VAE_PREFIX, CLASSIFIER_PREFIX = "vae.", "classifier."
MEAN, PRECISION = "reference.mean", "reference.precision"

Pixels = NDArray[np.uint8]
Network = TypeVar("Network", bound=nn.Module)


def load(location: str | Path, *, device: str = "auto", calibrate: bool = False) -> Model:
    """Return the model of a bundle.

    Args:
        location: Folder, zip archive, or fsspec URL of one of them.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        calibrate: Scale the probabilities by Platt's method, as fitted on validation; as they are,
            they equal those of the run.

    Raises:
        DamagedArtifactError: A file is missing or differs from its checksum, or it is no bundle.
        ValueError: There is no such device, or the bundle has a format this version does not read.
    """
    bundle = read_bundle(location)
    return Model(calibrated(bundle) if calibrate else bundle, device)


class Model:
    """A trained model; `cxrmodel.load` makes it.

    Shapes: B images, S image side in pixels, Z latent dimensions.

    Args:
        bundle: Weights and everything else.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Attributes:
        bundle: As given.
        labels: What the classifier tells, in order.
        thresholds: By label; None where validation could not tell one.
        preprocessing: How files become pixels.
    """

    def __init__(self, bundle: Bundle, device: str = "auto") -> None:
        description = bundle.description
        self.bundle = bundle
        self.labels = bundle.labels
        self.thresholds: dict[str, float | None] = dict(description["thresholds"])
        self.preprocessing = BundlePreprocessing(**description["images"])
        self._limits: dict[str, float | None] = description["limits"]
        self._device = resolve_device(device)
        vae = _network(VAE, VAE_PREFIX, description["architecture"]["vae"], bundle)
        self._vae = vae
        sizes = description["architecture"]["classifier"]
        self._classifier = _network(Classifier, CLASSIFIER_PREFIX, sizes, bundle).to(self._device)
        self._coder = Coder(vae, self._device, description["precision"])
        latent_dim = vae.latent_dim
        self._mean = _statistic(bundle, MEAN, (latent_dim,))
        self._precision = _statistic(bundle, PRECISION, (latent_dim, latent_dim))
        try:
            self._gate = Gate.of(bundle.tensors)
        except ValueError as error:
            raise DamagedArtifactError(f"{bundle.location}: {error}") from error

    def predict(
        self,
        images: Iterable[str | Path] | str | Path,
        *,
        batch_size: int | None = None,
        gate: bool = True,
    ) -> pd.DataFrame:
        """Score image files.

        Args:
            images: Paths or URLs; a folder stands for the images below it. PNG, JPEG, or DICOM
                where pydicom is installed.
            batch_size: Images that go through the network together; by default 8 of 1024 x 1024
                pixels, or up to 64 smaller ones that have as many together, and four times as
                many on a GPU.
            gate: Refuse what is no frontal chest X-ray, or has black and white inverted.

        Returns:
            A row per image, in order: `image`; `status`, which is `ok` or why there is no score,
            with `detail`; and the columns of `score`, null where there is none.

        Raises:
            ValueError: The batch size is less than 1.
        """
        tables = self.stream(images, batch_size=batch_size, gate=gate)
        return pd.concat([self.empty_table, *tables], ignore_index=True)

    def predict_files(
        self, images: Iterable[str], *, batch_size: int | None = None, gate: bool = True
    ) -> pd.DataFrame:
        """Return what `predict` does, with exactly one row per path: a folder is no image."""
        read = self.read_files(images, batch_size=batch_size, gate=gate)
        return pd.concat([self.empty_table, *map(self.score_read, read)], ignore_index=True)

    def stream(
        self,
        images: Iterable[str | Path] | str | Path,
        *,
        batch_size: int | None = None,
        gate: bool = True,
    ) -> Iterator[pd.DataFrame]:
        """Yield what `predict` returns, some rows at a time; memory does not grow with them."""
        for batch in self.read(images, batch_size=batch_size, gate=gate):
            yield self.score_read(batch)

    def read(
        self,
        images: Iterable[str | Path] | str | Path,
        *,
        batch_size: int | None = None,
        gate: bool = True,
    ) -> Iterator[list[ReadImage]]:
        """Return batches of decoded images; one that is refused has no pixels, and a reason."""
        paths = [images] if isinstance(images, str | Path) else images
        return self.read_files(expand(paths), batch_size=batch_size, gate=gate)

    def read_files(
        self,
        images: Iterable[str],
        *,
        batch_size: int | None = None,
        gate: bool = True,
        read: ReadBytes | None = None,
        num_workers: int | None = None,
    ) -> Iterator[list[ReadImage]]:
        """Return what `read` does, of files alone: a folder is no image.

        Args:
            images: Names of files.
            batch_size: As for `predict`.
            gate: As for `predict`.
            read: How to get a file's bytes by its name; by default that is its path or URL.
            num_workers: Threads that read and decode; by default one per core.
        """
        num_together = self._batch_size(batch_size)
        files = read_images(images, self.preprocessing, num_workers, gate=gate, read=read)
        return keeping_memory(self._in_batches(files, num_together, gate=gate), self._device)

    def _in_batches(
        self, images: Iterable[ReadImage], batch_size: int, *, gate: bool
    ) -> Iterator[list[ReadImage]]:
        batch: list[ReadImage] = []
        for image in images:
            batch.append(image)
            if len(batch) == batch_size:
                yield self._checked(batch, gate=gate)
                batch = []
        if batch:
            yield self._checked(batch, gate=gate)

    def score_read(self, images: list[ReadImage]) -> pd.DataFrame:
        """Return the rows of `predict` for images that `read` gave."""
        pixels = [image.pixels for image in images if image.pixels is not None]
        return _join(images, self._score_batch(np.stack(pixels))[0] if pixels else self._no_scores)

    def score_and_reconstruct(
        self, images: list[ReadImage]
    ) -> tuple[pd.DataFrame, list[NDArray[np.float32]]]:
        """Return what `score_read` does, and the reconstructions of those that have pixels.

        The networks run once. A reconstruction is (S, S), float32 in [0, 1].
        """
        pixels = [image.pixels for image in images if image.pixels is not None]
        if not pixels:
            return _join(images, self._no_scores), []
        scores, decoded = self._score_batch(np.stack(pixels))
        return _join(images, scores), list(decoded.squeeze(1).cpu().numpy())

    def score(self, pixels: Pixels, *, batch_size: int | None = None) -> pd.DataFrame:
        """Score decoded images.

        Args:
            pixels: (N, S, S), uint8, as `preprocessing` makes them.
            batch_size: As for `predict`.

        Returns:
            A row per image: per label `p_<label>`, a probability, and `call_<label>`, whether it
            reaches the threshold, null where there is none; `mu_00` and so on, the latents; `l1`,
            the reconstruction's mean absolute error on [0, 1]; `sharpness` of the image;
            `distance` of the latents from the train images' (Mahalanobis); and `unusual`, whether
            `l1` or `distance` is above 99 % of the validation images.

        Raises:
            ValueError: The pixels are of another shape or type, or the batch size is less than 1.
        """
        batches = keeping_memory(in_batches(pixels, self._batch_size(batch_size)), self._device)
        scores = [self._score_batch(batch)[0] for batch in batches]
        return pd.concat([self._no_scores, *scores], ignore_index=True)

    def _score_batch(self, pixels: Pixels) -> tuple[pd.DataFrame, Tensor]:
        """Return the scores and the reconstructions, (B, 1, S, S)."""
        image = self._load(pixels)
        mu, _ = self._coder.encode(image)
        decoded = self._coder.decode(mu)
        l1 = image_quality(decoded, image).l1
        sharp = sharpness(image)
        with torch.inference_mode():
            probabilities = self._classifier(mu).sigmoid().cpu().numpy()
        latents = mu.cpu().numpy()
        distance = mahalanobis(latents.astype(np.float64), self._mean, self._precision)
        errors = l1.cpu().numpy()
        columns = {
            **{f"p_{label}": probabilities[:, k] for k, label in enumerate(self.labels)},
            **self._calls(probabilities),
            **{f"mu_{dim:02d}": latents[:, dim] for dim in range(latents.shape[1])},
            "l1": errors,
            "sharpness": sharp.cpu().numpy(),
            "distance": distance.astype(np.float32),
            "unusual": self._is_unusual(errors, distance),
        }
        return pd.DataFrame(columns), decoded

    def encode(self, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and log-variance of q(z | x), each (B, Z), of images (B, S, S), uint8."""
        mu, logvar = self._coder.encode(self._load(pixels))
        return mu.cpu().numpy(), logvar.cpu().numpy()

    def reconstruct(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return images (B, S, S), uint8, as decoded from their latents, float32 in [0, 1]."""
        decoded = self._coder.decode(self._coder.encode(self._load(pixels))[0])
        return np.asarray(decoded.squeeze(1).cpu().numpy())

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the images (B, S, S), float32 in [0, 1], of latents (B, Z)."""
        decoded = self._coder.decode(torch.tensor(latents, device=self._device))
        return np.asarray(decoded.squeeze(1).cpu().numpy())

    def error_map(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return the absolute error of each pixel's reconstruction, (B, S, S), on [0, 1]."""
        image = self._load(pixels)
        decoded = self._coder.decode(self._coder.encode(image)[0])
        return np.asarray((decoded - image).abs().squeeze(1).cpu().numpy())

    @property
    def networks(self) -> tuple[VAE, Classifier]:
        """The autoencoder and the classifier, in evaluation mode on this model's device."""
        return self._vae, self._classifier

    @property
    def usual_latent(self) -> NDArray[np.float64]:
        """Mean latent of the train images, (Z,)."""
        return np.asarray(self._mean)

    def refusals(self, pixels: Sequence[NDArray[np.uint8] | None]) -> list[str]:
        """Return why the gate refuses each of some (S, S) images: a reason, or nothing.

        One without pixels has nothing; neither has any image where there is no gate.
        """
        return _reasons(self._gate, pixels) if self._gate else [""] * len(pixels)

    @property
    def has_gate(self) -> bool:
        """Whether the bundle knows what a chest X-ray looks like."""
        return self._gate is not None

    @property
    def empty_table(self) -> pd.DataFrame:
        """What `predict` returns of no image: every column with its type."""
        return _join([], self._no_scores)

    @cached_property
    def _no_scores(self) -> pd.DataFrame:
        size = self.preprocessing.size
        return self._score_batch(np.zeros((1, size, size), np.uint8))[0].iloc[:0]

    def _checked(self, images: list[ReadImage], *, gate: bool) -> list[ReadImage]:
        return _refuse(images, self._gate) if gate and self._gate is not None else images

    def _is_unusual(
        self, errors: NDArray[np.float32], distance: NDArray[np.float64]
    ) -> pd.api.extensions.ExtensionArray:
        most_error, most_distance = self._limits["l1"], self._limits["distance"]
        if most_error is None or most_distance is None:  # a run without validation images
            return pd.array([None] * len(errors), dtype="boolean")
        return pd.array((errors > most_error) | (distance > most_distance), dtype="boolean")

    def _calls(self, probabilities: NDArray[np.float32]) -> Mapping[str, Any]:
        missing = pd.array([None] * len(probabilities), dtype="boolean")
        calls = {}
        for k, label in enumerate(self.labels):
            threshold = self.thresholds[label]
            reached = missing if threshold is None else probabilities[:, k] >= threshold
            calls[f"call_{label}"] = pd.array(reached, dtype="boolean")
        return calls

    def _batch_size(self, wanted: int | None) -> int:
        if wanted is None:
            of_size = BATCH_PIXELS // self.preprocessing.size**2
            times = 1 if self._device.type == "cpu" else TIMES_ON_GPU
            return times * max(MIN_BATCH, min(MAX_BATCH, of_size))
        if wanted < 1:
            raise ValueError(f"batch_size is {wanted}, and has to be at least 1.")
        return wanted

    def _load(self, pixels: Pixels) -> Tensor:
        size = self.preprocessing.size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size):
            raise ValueError(
                f"The images are {pixels.dtype} of shape {pixels.shape}, and this model takes "
                f"uint8 of shape (B, {size}, {size}). `predict` makes files so."
            )
        return self._coder.load(pixels)


def _refuse(images: list[ReadImage], gate: Gate) -> list[ReadImage]:
    """Return images, without the pixels of those that the gate refuses."""
    reasons = _reasons(gate, [image.pixels for image in images])
    return [
        replace(image, status=reason, detail=MEANINGS[reason], pixels=None) if reason else image
        for image, reason in zip(images, reasons, strict=True)
    ]


def _reasons(gate: Gate, pixels: Sequence[NDArray[np.uint8] | None]) -> list[str]:
    seen = [each for each in pixels if each is not None]
    reasons = iter(gate.check(np.stack(seen)) if seen else [])
    return ["" if each is None else next(reasons) for each in pixels]


def _join(images: list[ReadImage], scores: pd.DataFrame) -> pd.DataFrame:
    """Put scores of those that have pixels beside the name and status of all."""
    about = pd.DataFrame(
        {
            name: pd.array([_printable(getattr(image, name)) for image in images], dtype="str")
            for name in ("image", "status", "detail")
        }
    )
    rows = [row for row, image in enumerate(images) if image.pixels is not None]
    return about.join(scores.set_axis(rows, axis="index"))


def _printable(text: str) -> str:
    """Return text that Parquet and CSV can hold: names of files may be any bytes."""
    return text.replace("\r", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _statistic(bundle: Bundle, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = bundle.tensors.get(name)
    if found is None or found.shape != shape:
        has = "no" if found is None else f"a {tuple(found.shape)}"
        raise DamagedArtifactError(f"{bundle.location} has {has} {name}, and needs one of {shape}.")
    return np.asarray(found.double().numpy())


def _network(kind: type[Network], prefix: str, sizes: dict[str, int], bundle: Bundle) -> Network:
    """Build a network from its share of the bundle's tensors."""
    weights = {
        name.removeprefix(prefix): tensor
        for name, tensor in bundle.tensors.items()
        if name.startswith(prefix)
    }
    try:
        with torch.device("meta"):
            network = kind(**sizes)
        network.load_state_dict(weights, assign=True)
    except (TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split()[:40])
        raise DamagedArtifactError(
            f"The weights of {bundle.location} are not those of the network it describes: {first}"
        ) from error
    if other := [name for name, tensor in weights.items() if tensor.dtype != torch.float32]:
        raise DamagedArtifactError(f"{prefix}{other[0]} of {bundle.location} is not float32.")
    return network.eval().requires_grad_(False)
