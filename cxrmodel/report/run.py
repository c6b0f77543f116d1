"""What a report reads: the files of the stages, and what is known of the run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import PHANTOM_ROOT, ImagesConfig
from cxrmodel.data.datasets.nih import NIH
from cxrmodel.data.label_columns import label_names
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.evaluation.audit.localisation import Fit
from cxrmodel.evaluation.autoencoder import QUALITY
from cxrmodel.evaluation.predictions import Predictions, read_predictions
from cxrmodel.storage.layout import (
    BOXES_FILE,
    CONFIG_FILE,
    EXCLUDED_FILE,
    HASHES_FILE,
    HISTORY_FILE,
    IMAGES_FILE,
    INDEX_FILE,
    LATENTS_FILE,
    NOTES_FILE,
    PREDICTIONS_FILE,
    RECONSTRUCTION_FILE,
    SPLIT_FILE,
)
from cxrmodel.training.network_files import REMEDY, read_table

PCA_NETWORK = "pca_network"
FITTED_BASELINES = ("pca_logistic", "metadata", "patient_memory")
PER_EPOCH = {
    "vae": ("epoch", "val_l1", "val_kl_nats", "posterior_variance", "active_units", "lr"),
    "classifier": ("epoch", "train_loss", "val_loss"),
}
LEDGERS = ("index", "images", "split")


@dataclass(frozen=True)
class RunInputs:
    """Folders of the stages that a report is about."""

    index: Path
    images: Path
    split: Path
    vae: Path
    latents: Path
    classifier: Path
    baselines: Path
    pca_network: Path


@dataclass(frozen=True)
class RunRecord:
    """What the caller knows of the run.

    Attributes:
        config: The effective settings, by section.
        provenance: Where the numbers come from: `code`, `config`, `packages`.
        timings_s: Wall time of each stage, in seconds.
        data_fingerprint: sha256 of what the data's root holds.
        dataset: Which data set it is, by its name in `data.dataset`.
        training_speed: Of the autoencoder, medians over epochs: `images_per_s`, and `loader_wait`,
            the share of the time spent waiting for images.
    """

    config: dict[str, Any]
    provenance: dict[str, Any]
    timings_s: dict[str, float]
    data_fingerprint: str
    dataset: str = NIH.name
    training_speed: dict[str, float | None] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """Where the data set is, as configured."""
        data = self.config.get("data", {})
        several = [str(source["root"]) for source in data.get("sources", ())]
        return " and ".join(several) or str(data.get("root", ""))

    @property
    def is_synthetic(self) -> bool:
        """Whether the images were generated and show no person."""
        return self.root == PHANTOM_ROOT

    @property
    def fit(self) -> Fit:
        """How files of another shape became square."""
        fit: Fit = self.config.get("images", {}).get("fit", ImagesConfig().fit)
        return fit

    @property
    def split_method(self) -> str:
        """How the images were divided."""
        return str(self.config.get("split", {}).get("method", "unknown"))


@dataclass(frozen=True)
class Run:
    """A run's record, and the files of its stages in memory.

    Attributes:
        record: What the caller knows of the run.
        inputs: Folders of the stages.
        images: A row per used image: `image`, `split`, and the index's `patient_id`, `age`, `sex`,
            `view`, `follow_up`, `source`, `any_abnormal` and labels, and the pixels' `crc32`.
        labels: Names of all labels of the data set, in its order.
        left_out: Why some of them are not classified, by name.
        excluded: A row per ledger entry: `stage`, `image`, `reason`, `detail`.
        notes: What the index and split stages had to interpret or have to say, a sentence each.
        vae_history: A row per epoch.
        classifier_history: A row per epoch.
        latents: `latents.parquet`, in the order of `images`.
        hashes: (N, 64), perceptual fingerprints, in the order of `images`.
        boxes: A row per box of a used image: `image`, `pathology`, `x`, `y`, `width` and `height`
            (on the grid of `BOX_GRID_PX`), `file_width` and `file_height`, `patient_id`, `split`.
        predictions: Of the classifier, by part of the split; these and the baselines' are in the
            order of `images`.
        baseline_predictions: Of each fitted baseline, the hardest to beat first, by part of the
            split.
        compression: Errors of the baselines that compress an image.
    """

    record: RunRecord
    inputs: RunInputs
    images: pd.DataFrame
    labels: tuple[str, ...]
    left_out: dict[str, str]
    excluded: pd.DataFrame
    notes: list[str]
    vae_history: pd.DataFrame
    classifier_history: pd.DataFrame
    latents: pd.DataFrame
    hashes: NDArray[np.uint8]
    boxes: pd.DataFrame
    predictions: dict[str, Predictions]
    baseline_predictions: dict[str, dict[str, Predictions]]
    compression: dict[str, Any]

    @property
    def latent_dim(self) -> int:
        """Dimensions of a latent."""
        return int(self.latents.columns.str.match(r"^mu_\d+$").sum())

    @property
    def known_of_people(self) -> tuple[str, ...]:
        """Which of `age`, `sex` and `view` is known of any image."""
        return tuple(x for x in ("age", "sex", "view") if self.images[x].notna().any())

    @property
    def in_test(self) -> NDArray[np.bool_]:
        """Which images are of the test part, (N,)."""
        return (self.images["split"] == "test").to_numpy()


def read_run(inputs: RunInputs, record: RunRecord) -> Run:
    """Read the stages' files.

    Raises:
        DamagedArtifactError: The latents or a history are unreadable or lack a row or a column.
    """
    index = inputs.index / INDEX_FILE
    images = _read_images(inputs, index)
    names = images["image"].tolist()
    hashes = pd.read_parquet(inputs.baselines / HASHES_FILE).set_index("image")["hash"]
    return Run(
        record=record,
        inputs=inputs,
        images=images,
        labels=label_names(index),
        left_out=_read_left_out(inputs.classifier),
        excluded=_read_ledgers(inputs),
        notes=[*_read_notes(inputs.index), *_read_notes(inputs.split)],
        vae_history=read_table(inputs.vae / HISTORY_FILE, PER_EPOCH["vae"]),
        classifier_history=read_table(inputs.classifier / HISTORY_FILE, PER_EPOCH["classifier"]),
        latents=_read_latents(inputs.latents, names, ["split", "mu_00", "logvar_00", *QUALITY]),
        hashes=np.frombuffer(b"".join(hashes.loc[names]), np.uint8).reshape(len(names), -1),
        boxes=_read_boxes(inputs, images),
        predictions=read_predictions(inputs.classifier / PREDICTIONS_FILE, index, names),
        baseline_predictions={
            name: read_predictions(path, index, names)
            for name, path in _fitted_baselines(inputs).items()
        },
        compression=json.loads((inputs.baselines / RECONSTRUCTION_FILE).read_text()),
    )


def _fitted_baselines(inputs: RunInputs) -> dict[str, Path]:
    """Return the file of each baseline's predictions, the hardest to beat first."""
    files = {name: inputs.baselines / f"{name}.parquet" for name in FITTED_BASELINES}
    network = inputs.pca_network / PREDICTIONS_FILE
    # Without principal components there is no network on them.
    return {PCA_NETWORK: network, **files} if network.exists() else files


def _read_left_out(classifier: Path) -> dict[str, str]:
    config = json.loads((classifier / CONFIG_FILE).read_text("utf-8"))
    left_out: dict[str, str] = config["labels_left_out"]
    return left_out


def _read_latents(directory: Path, names: list[str], columns: list[str]) -> pd.DataFrame:
    path = directory / LATENTS_FILE
    latents = read_table(path, ["image", *columns]).set_index("image")
    missing = pd.Index(names).difference(latents.index, sort=False)
    if len(missing):
        raise DamagedArtifactError(
            f"{path} has no row of {len(missing)} of the split's {len(names)} images; the first is "
            f"{missing[0]}. {REMEDY}."
        )
    return latents.loc[names].reset_index()


def _read_images(inputs: RunInputs, index: Path) -> pd.DataFrame:
    images = pd.read_parquet(inputs.split / SPLIT_FILE, columns=["image", "split"])
    known = pd.read_parquet(index).drop(columns=["uri", "official"], errors="ignore")
    checksums = pd.read_parquet(inputs.images / IMAGES_FILE, columns=["image", "crc32"])
    images = images.merge(known, on="image", validate="1:1")
    return images.merge(checksums, on="image", validate="1:1")


def _read_boxes(inputs: RunInputs, images: pd.DataFrame) -> pd.DataFrame:
    boxes = pd.read_parquet(inputs.index / BOXES_FILE)
    columns = {"width": "file_width", "height": "file_height"}
    files = pd.read_parquet(inputs.images / IMAGES_FILE, columns=["image", *columns])
    known = images[["image", "patient_id", "split"]].merge(
        files.rename(columns=columns), on="image"
    )
    return boxes.merge(known, on="image")


def _read_notes(folder: Path) -> list[str]:
    notes: list[str] = json.loads((folder / NOTES_FILE).read_text("utf-8"))
    return notes


def _read_ledgers(inputs: RunInputs) -> pd.DataFrame:
    ledgers = []
    for stage in LEDGERS:
        ledger = pd.read_parquet(getattr(inputs, stage) / EXCLUDED_FILE).astype(object)
        ledger.insert(0, "stage", stage)
        ledgers.append(ledger)
    return pd.concat(ledgers, ignore_index=True)
