"""From the stages of a run to a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.covariance import LedoitWolf
from torch import Tensor

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images import grey
from cxrmodel.inference.bundle import (
    CARD,
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    REFERENCE,
    TEST,
    TRAIN,
    mahalanobis,
    patient_hash,
    save_weights,
    write_checksums,
)
from cxrmodel.inference.card import bundle_card
from cxrmodel.inference.gate import THUMBNAIL_PX, Gate, thumbnails
from cxrmodel.inference.image_files import OK
from cxrmodel.inference.predictor import CLASSIFIER_PREFIX, MEAN, PRECISION, VAE_PREFIX
from cxrmodel.inference.sharpness import sharpness
from cxrmodel.storage.layout import (
    CLASSIFIER_WEIGHTS_FILE,
    CONFIG_FILE,
    HASHES_FILE,
    IMAGES_FILE,
    INDEX_FILE,
    LATENTS_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    PREDICTIONS_FILE,
    VAE_WEIGHTS_FILE,
)
from cxrmodel.training.image_batches import to_device

if TYPE_CHECKING:
    from cxrmodel.data.images.pixels import Pixels

USUAL_SHARE = 0.99
MAX_GATE_IMAGES = 1000  # of each part; a thumbnail each
SEED = 0  # of the draw of these
READ_BATCH = 16


@dataclass(frozen=True)
class BundleInputs:
    """Folders of the stages of one run."""

    index: Path
    images: Path
    vae: Path
    latents: Path
    classifier: Path
    baselines: Path
    report: Path


def build_bundle(
    inputs: BundleInputs,
    pixels: Pixels,
    config: ImagesConfig,
    precision: str,
    directory: Path,
) -> dict[str, Any]:
    """Write a bundle; same inputs, same bytes.

    Args:
        inputs: Folders of the stages.
        pixels: The images, of which up to 1,000 of train and of validation are looked at.
        config: How files became pixels.
        precision: Arithmetic that the latents were computed in.
        directory: Where to write.

    Returns:
        Numbers worth showing.

    Raises:
        DataError: An image has no pixels.
    """
    tables = _Tables.read(inputs)
    metrics = json.loads((inputs.report / METRICS_FILE).read_text(encoding="utf-8"))
    mu = tables.latents.filter(regex=r"^mu_\d+$").to_numpy(np.float64)
    of_train = (tables.rows["split"] == "train").to_numpy()
    usual = LedoitWolf().fit(mu[of_train])
    distance = mahalanobis(mu, usual.location_, usual.precision_)
    gate, seen = _fit_gate(tables.rows, pixels)
    reference = _reference(tables, distance, seen)
    tensors = {
        **_prefixed(VAE_PREFIX, inputs.vae / VAE_WEIGHTS_FILE),
        **_prefixed(CLASSIFIER_PREFIX, inputs.classifier / CLASSIFIER_WEIGHTS_FILE),
        MEAN: torch.from_numpy(usual.location_),
        PRECISION: torch.from_numpy(usual.precision_),
        **(gate.tensors() if gate else {}),
    }
    save_weights(tensors, directory)
    description = _describe(inputs, config, precision, metrics, tables.labels)
    description["limits"] = {
        name: float(np.quantile(reference[name], USUAL_SHARE)) if len(reference) else None
        for name in ("l1", "distance")
    }
    text = json.dumps(description, indent=1, sort_keys=True, allow_nan=False)
    (directory / DESCRIPTION).write_text(f"{text}\n", encoding="utf-8")
    reference.to_parquet(directory / REFERENCE, index=False, compression="zstd")
    patients = _patient_hashes(tables.rows["patient_id"], description["salt"])
    _seen(tables, patients).to_parquet(directory / TRAIN, index=False, compression="zstd")
    test = _test(tables, patients)
    test.to_parquet(directory / TEST, index=False, compression="zstd")
    card = (inputs.report / MODEL_CARD_FILE).read_text(encoding="utf-8")
    (directory / CARD).write_text(bundle_card(description, metrics, card), encoding="utf-8")
    write_checksums(directory)
    return {
        "num_labels": len(tables.labels),
        "num_reference": len(reference),
        "num_test": len(test),
        "has_gate": gate is not None,
    }


@dataclass(frozen=True)
class _Tables:
    """The stages' tables, row by row of the latents.

    Attributes:
        rows: `image`, `split`, `patient_id`, `view`, `sex`, `age`, `source`, the labels, `crc32` of
            the pixels, and `hash`, the perceptual fingerprint.
        latents: As the latents stage wrote them.
        probabilities: As the classifier stage wrote them.
        labels: Names, in the classifier's order.
    """

    rows: pd.DataFrame
    latents: pd.DataFrame
    probabilities: pd.DataFrame
    labels: tuple[str, ...]

    @classmethod
    def read(cls, inputs: BundleInputs) -> _Tables:
        latents = pd.read_parquet(inputs.latents / LATENTS_FILE)
        probabilities = pd.read_parquet(inputs.classifier / PREDICTIONS_FILE)
        labels = tuple(_read_json(inputs.classifier / CONFIG_FILE)["labels"])
        columns = ["image", "patient_id", "view", "sex", "age", "source", *labels]
        index = pd.read_parquet(inputs.index / INDEX_FILE, columns=columns)
        checksums = pd.read_parquet(inputs.images / IMAGES_FILE, columns=["image", "crc32"])
        rows = latents[["image", "split"]].merge(index, on="image", how="left", validate="1:1")
        rows = rows.merge(checksums, on="image", how="left", validate="1:1")
        hashes = pd.read_parquet(inputs.baselines / HASHES_FILE)
        rows = rows.merge(hashes, on="image", how="left", validate="1:1")
        probabilities = latents[["image"]].merge(probabilities, on="image", validate="1:1")
        return cls(rows, latents, probabilities, labels)


def _reference(tables: _Tables, distance: NDArray[np.float64], seen: pd.DataFrame) -> pd.DataFrame:
    """Return the validation images' scores and labels; patients become numbers.

    Args:
        tables: Of the stages.
        distance: Of the latents of all images.
        seen: What was found of the images that were looked at.
    """
    of_val = (tables.rows["split"] == "val").to_numpy()
    rows = tables.rows[of_val].reset_index(drop=True)
    latents = tables.latents[of_val].reset_index(drop=True)
    probabilities = tables.probabilities[of_val].reset_index(drop=True)
    looks = rows[["image"]].merge(seen, on="image", how="left", validate="1:1")
    return pd.concat(
        [
            pd.Series(pd.factorize(rows["patient_id"], sort=True)[0], name="patient").astype(
                "int32"
            ),
            rows[["view", "sex", "age", "source"]],
            looks["status"],
            latents["l1"],
            looks["sharpness"],
            pd.Series(distance[of_val], name="distance", dtype="float32"),
            latents.filter(regex=r"^mu_\d+$"),
            rows[list(tables.labels)].add_prefix("y_"),
            probabilities[[f"p_{label}" for label in tables.labels]],
        ],
        axis="columns",
    )


def _test(tables: _Tables, patients: pd.Series) -> pd.DataFrame:
    """Return the test images' scores and labels, without names."""
    of_test = (tables.rows["split"] == "test").to_numpy()
    probabilities = tables.probabilities[[f"p_{label}" for label in tables.labels]]
    about = tables.rows[["crc32", "view", "sex", "age"]]
    about.insert(0, "patient", patients)
    truth = tables.rows[list(tables.labels)].add_prefix("y_")
    scored = pd.concat([about, truth, probabilities], axis="columns")
    return scored[of_test].reset_index(drop=True)


def _fit_gate(rows: pd.DataFrame, pixels: Pixels) -> tuple[Gate | None, pd.DataFrame]:
    """Return the gate, and a row per validation image that it was fitted on.

    Returns:
        The gate, None where there are too few images; `image`, `status` (`ok` or what the gate
        says, null without one) and `sharpness`.
    """
    _, train, _ = _look_at("train", rows, pixels)
    names, validation, sharp = _look_at("val", rows, pixels)
    gate = Gate.fit(train, validation)
    reasons = gate.check_thumbnails(validation) if gate else [None] * len(names)
    status = [OK if reason == "" else reason for reason in reasons]
    seen = {"image": names, "status": np.array(status, dtype="object"), "sharpness": sharp}
    return gate, pd.DataFrame(seen)


def _look_at(
    part: str, rows: pd.DataFrame, pixels: Pixels
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float32]]:
    """Return names, thumbnails and sharpness of some images of a part."""
    names = rows["image"][(rows["split"] == part).to_numpy()].to_numpy()
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(names))[:MAX_GATE_IMAGES])
    places = pixels.rows_of(names[drawn].tolist())
    small, sharp = [np.zeros((0, THUMBNAIL_PX**2))], [np.zeros(0, np.float32)]
    for at in range(0, len(places), READ_BATCH):
        batch = pixels.read(places[at : at + READ_BATCH])
        small.append(thumbnails(batch))
        sharp.append(sharpness(to_device(batch, torch.device("cpu"))).numpy())
    return names[drawn], np.concatenate(small), np.concatenate(sharp)


def _prefixed(prefix: str, path: Path) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}


def _describe(
    inputs: BundleInputs,
    config: ImagesConfig,
    precision: str,
    metrics: dict[str, Any],
    labels: tuple[str, ...],
) -> dict[str, Any]:
    """Return the content of `model.json`; thresholds and calibration are those of the report."""
    per_class = metrics["classifier"]["per_class"]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "made_by": f"cxrmodel {version('cxrmodel')}",
        "architecture": {
            "vae": _read_json(inputs.vae / CONFIG_FILE)["architecture"],
            "classifier": _read_json(inputs.classifier / CONFIG_FILE)["architecture"],
        },
        "images": config.model_dump(include={"size", "fit", "max_megapixels"}),
        "grey_levels": grey.METHOD,
        "precision": precision,
        "labels": list(labels),
        "thresholds": {label: per_class[label]["threshold"] for label in labels},
        "calibration": {
            label: {name: per_class[label]["calibration"][name] for name in ("slope", "intercept")}
            for label in labels
        },
        "data": metrics["data"] | {"title": _title(metrics["data"])},
        "split": metrics["split"],
        "provenance": metrics["provenance"],
        "config": metrics["config"],
        "salt": metrics["data"]["fingerprint"],
    }


def _title(data: dict[str, Any]) -> str:
    """Name the data set; synthetic images have the layout of one, and show nobody."""
    layout = f"synthetic images in the layout of {data['title']}"
    return layout if data["is_synthetic"] else str(data["title"])


def _patient_hashes(patients: pd.Series, salt: str) -> pd.Series:
    return patients.map({patient: patient_hash(salt, patient) for patient in patients.unique()})


def _seen(tables: _Tables, patients: pd.Series) -> pd.DataFrame:
    """Return what tells the images and patients again that the model was made with."""
    table = tables.rows[["crc32", "split", "hash"]].assign(patient=patients)
    seen = table[table["split"] != "test"][["crc32", "patient", "split", "hash"]]
    return seen.sort_values(["patient", "crc32"], ignore_index=True)


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
