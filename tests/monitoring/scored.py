"""A bundle without a network, and scores that it might have given: monitoring needs no more."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cxrmodel.inference.bundle import (
    CARD,
    DESCRIPTION,
    FORMAT,
    FORMAT_VERSION,
    REFERENCE,
    TRAIN,
    patient_hash,
    read_bundle,
    save_weights,
    write_checksums,
)
from cxrmodel.inference.score_parts import ScoreParts

LABELS = ("Effusion", "Mass")
NUM_DIMS = 6
SALT = "salt"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def images(num: int, seed: int, *, shift: float = 0.0, per_patient: int = 2) -> pd.DataFrame:
    """Rows of images: all columns that scores and people have."""
    rng = np.random.default_rng(seed)
    patients = np.arange(num) // per_patient
    own = rng.normal(size=(patients.max() + 1, NUM_DIMS))[patients]
    mu = 0.7 * own + 0.7 * rng.normal(size=(num, NUM_DIMS))
    mu[:, 0] += shift
    rows = pd.DataFrame(mu.astype(np.float32), columns=[f"mu_{dim:02d}" for dim in range(NUM_DIMS)])
    for label in LABELS:
        rows[f"p_{label}"] = rng.random(num).astype(np.float32)
    return rows.assign(
        l1=rng.gamma(9, 0.01, num).astype(np.float32),
        sharpness=rng.gamma(20, 0.01, num).astype(np.float32),
        distance=np.linalg.norm(mu, axis=1).astype(np.float32),
        patient=patients.astype(np.int32),
        view=rng.choice(["AP", "PA"], num),
        sex=rng.choice(["F", "M"], patients.max() + 1)[patients],
        age=rng.integers(20, 90, patients.max() + 1)[patients],
        status="ok",
        source="nih",
    )


def write_bundle(folder: Path, num_reference: int = 240, *, train: tuple[str, ...] = ()) -> Path:
    """Write a bundle with a reference of so many images."""
    folder.mkdir(parents=True)
    reference = images(num_reference, seed=1)
    for label in LABELS:
        reference[f"y_{label}"] = 0
    unit = {label: {"slope": 1.0, "intercept": 0.0} for label in LABELS}
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": {
            "vae": {"latent_dim": NUM_DIMS, "image_size": 64},
            "classifier": {"latent_dim": NUM_DIMS, "num_labels": len(LABELS)},
        },
        "images": {"size": 64, "fit": "crop", "max_megapixels": 100},
        "precision": "float32",
        "labels": list(LABELS),
        "thresholds": dict.fromkeys(LABELS),
        "calibration": unit,
        "limits": {name: float(reference[name].quantile(0.99)) for name in ("l1", "distance")},
        "data": {"title": "images of a test", "num_images": num_reference},
        "split": {"method": "patient"},
        "salt": SALT,
    }
    save_weights({"weight": torch.zeros(1)}, folder)
    (folder / DESCRIPTION).write_text(json.dumps(description), "utf-8")
    reference.to_parquet(folder / REFERENCE, index=False)
    hashes = [patient_hash(SALT, patient) for patient in train]
    table = pd.DataFrame({"crc32": np.arange(len(hashes)), "patient": hashes})
    table.to_parquet(folder / TRAIN, index=False)
    (folder / CARD).write_text("a card", "utf-8")
    write_checksums(folder)
    return folder


def write_root(folder: Path, num: int, *, folders: tuple[str, ...] = ("a",)) -> pd.DataFrame:
    """Write small images of patients of two images each, and a table of them; return the table."""
    rng = np.random.default_rng(0)
    about = images(num, seed=5)
    names = [f"{folders[row % len(folders)]}/{row:04d}.png" for row in range(num)]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)).save(path)
    table = pd.DataFrame(
        {
            "image": names,
            "patient_id": [f"patient{patient}" for patient in about["patient"]],
            "view": about["view"],
            "sex": about["sex"],
            "age": about["age"],
            "Effusion": rng.integers(0, 2, num),
        }
    )
    table.to_csv(folder / "table.csv", index=False)
    return table


def write_scores(
    out: Path,
    bundle: Path,
    rows: pd.DataFrame,
    names: list[str],
    root: Path,
    scored_at: datetime = NOON,
    version: str = "1",
) -> str:
    """Write the scores of images below a root as `score` does; return the key of the part."""
    digest = read_bundle(bundle).digest
    scores = rows.filter(regex=r"^(p_|mu_|l1|sharpness|distance|status|unusual)")
    scores.insert(0, "image", [f"{root}/{name}" for name in names])
    scores.insert(1, "version", version)
    refused = scores["status"] != "ok"
    unusual = pd.Series(False, scores.index, dtype="boolean").mask(refused)
    scores = scores.assign(detail="", unusual=unusual, bundle=digest)
    numbers = list(scores.filter(regex=r"^(p_|mu_|l1|sharpness|distance)"))
    scores[numbers] = scores[numbers].mask(refused)
    return ScoreParts(str(out), digest).write(
        scores,
        dict.fromkeys(names, version),
        root=str(root),
        made_by="a test",
        scored_at=scored_at.isoformat(timespec="seconds"),
    )
