"""What each setting of `configs/tuned.yaml` is worth, beside PCA of as many numbers.

`python -m benchmarks.ablation --data.root FOLDER [--seeds N] [RECIPE ...]`
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.page import replace_between
from benchmarks.variants import AVERAGED, VARIANTS, averaged_weights, fingerprint
from cxrmodel.config import DataConfig, ImagesConfig, LatentsConfig, SplitConfig, VAEConfig
from cxrmodel.data.images.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.evaluation.principal_components import PrincipalComponents
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.storage.layout import INDEX_FILE, LATENTS_FILE, SPLIT_FILE
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae
from cxrmodel.training.vae.objective import OBJECTIVES

CONFIGS = Path(__file__).parents[1] / "configs"
RESULTS = Path(__file__).with_name("ablation.json")
PAGE = Path(__file__).parents[1] / "docs" / "tuning.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
COLUMNS = {
    "val_l1": "L1, val",
    "val_abnormal": "abnormal, val",
    "val_view": "view, val",
    "test_l1": "L1, test",
    "test_abnormal": "abnormal, test",
    "test_view": "view, test",
}
SIZE, NUM_SEEDS = 256, 3
EPOCHS, LONG_EPOCHS, NOTEBOOK_EPOCHS = 40, 150, 46  # the last two take as long as each other

Row = dict[str, Any]


def recipes() -> dict[str, VAEConfig]:
    """Return the settings to compare, by name."""
    tuned, notebook = (
        VAEConfig(**yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))["vae"])
        for name in ("tuned.yaml", "notebook.yaml")
    )
    short = tuned.model_copy(update={"epochs": EPOCHS})
    without: dict[str, dict[str, Any]] = {
        "constant learning rate": {"schedule": "constant"},
        "no weight decay": {"weight_decay": 0.0},
        "no group norm": {"group_norm": False},
        "no mean image": {"mean_image": False},
        "no augmentation": {"augmentation": 0.0},
        "KL weight 1e-3": {"kl_weight": 1e-3},
    }
    return {
        "tuned": short,
        **{name: short.model_copy(update=change) for name, change in without.items()},
        **{name: short.model_copy(update={"objective": name}) for name in VARIANTS},
        AVERAGED: short,
        f"tuned, {LONG_EPOCHS} epochs": tuned.model_copy(update={"epochs": LONG_EPOCHS}),
        f"notebook, {NOTEBOOK_EPOCHS} epochs": notebook.model_copy(
            update={"epochs": NOTEBOOK_EPOCHS}
        ),
    }


@dataclass(frozen=True)
class Prepared:
    """The images, decoded and split by patient, in the order of the split's table.

    Attributes:
        parts: (N,), `train`, `val` or `test`.
        labels: What a linear probe must tell, by name, (N,) of 0 or 1 each.
    """

    folder: Path
    pixels: Pixels
    rows: NDArray[np.int64]
    parts: NDArray[np.object_]
    labels: dict[str, NDArray[np.int64]]

    @property
    def num_train(self) -> int:
        """Number of train images."""
        return int((self.parts == "train").sum())


def main() -> None:
    """Train what is not in `ablation.json` yet, one recipe and seed after the other."""
    OBJECTIVES.update(VARIANTS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    parser.add_argument("--data.root", dest="root", required=True, help="local data set")
    parser.add_argument("--work", type=Path, default=Path("outputs/ablation"), help="scratch")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="; ".join(recipes()))
    arguments = parser.parse_args()
    prepared = prepare(arguments.root, arguments.work)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    results["PCA"] = [measure_components(prepared)]
    for seed in range(arguments.seeds):
        for name in arguments.recipes or recipes():
            config = recipes()[name].model_copy(update={"seed": seed})
            found = results.setdefault(name, [])
            settings = fingerprint(name, config.fingerprint())
            if any(row["settings"] == settings for row in found):
                continue
            found[:] = [row for row in found if row["seed"] != seed]  # of other settings
            num_steps = config.epochs * math.ceil(prepared.num_train / int(config.batch_size))
            with averaged_weights(num_steps) if name == AVERAGED else nullcontext():
                scores = measure_recipe(config, prepared, prepared.folder / settings)
            found.append({"seed": seed, "settings": settings, **scores})
            print(f"{name}: {json.dumps(found[-1])}", flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    shown = {name: results[name] for name in ("PCA", *recipes()) if name in results}
    replace_between(PAGE, BEGIN, END, render(shown))


def prepare(root: str, work: Path) -> Prepared:
    """Index, decode and split; labels are those of the index."""
    folders = {name: work / name for name in ("index", "images", "split")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    data, images = DataConfig(root=root), ImagesConfig(size=SIZE)
    build_index(data, scan_source(data, work), folders["index"])
    decode_images(images, root, folders["index"], folders["images"], scratch=work)
    split_images(SplitConfig(), folders["index"], folders["images"], folders["split"])
    pixels = open_pixels(images, root, folders["index"], folders["images"], scratch=work)
    split = pd.read_parquet(folders["split"] / SPLIT_FILE)
    index = pd.read_parquet(folders["index"] / INDEX_FILE).set_index("image")
    known = index.loc[split["image"]]
    labels = {
        "abnormal": known["any_abnormal"].to_numpy(dtype=np.int64),
        "view": (known["view"] == "AP").to_numpy(dtype=np.int64),
    }
    rows = pixels.rows_of(split["image"].tolist())
    return Prepared(work, pixels, rows, split["split"].to_numpy(dtype=object), labels)


def measure_components(prepared: Prepared) -> Row:
    """Return the scores of PCA with as many components, fitted on the train images."""
    images = to_unit(prepared.pixels.read(prepared.rows)).reshape(len(prepared.rows), -1)
    num_components = recipes()["tuned"].latent_dim
    none = PrincipalComponents.none(images.shape[1])
    pca = none.updated(images[prepared.parts == "train"], num_components)
    coordinates = pca.transform(images)
    decoded = np.clip(pca.inverse_transform(coordinates), 0, 1)
    return score(prepared, coordinates, np.abs(decoded - images).mean(axis=1))


def measure_recipe(config: VAEConfig, prepared: Prepared, folder: Path) -> Row:
    """Train in a folder and return the scores of the weights that would be published."""
    vae, latents = folder / "vae", folder / "latents"
    for made in (vae, latents):
        made.mkdir(parents=True, exist_ok=True)
    split = prepared.folder / "split"
    with TemporaryDirectory() as checkpoints:  # new: averages of weights are not in one
        fit_vae(config, prepared.pixels, split, vae, checkpoints=Path(checkpoints))
    settings = LatentsConfig(batch_size=8, precision=config.precision)
    extract_latents(settings, vae, prepared.pixels, split, latents, parts=folder / "parts")
    table = pd.read_parquet(latents / LATENTS_FILE)
    mu = table.filter(regex=r"^mu_\d+$").to_numpy(dtype=np.float64)
    return score(prepared, mu, table["l1"].to_numpy(dtype=np.float64))


def score(prepared: Prepared, latents: NDArray[np.float64], l1: NDArray[np.float64]) -> Row:
    """Return mean error and the AUROC of linear probes fitted on train, of val and test."""
    scores = {
        f"{part}_l1": round(float(l1[prepared.parts == part].mean()), 4) for part in ("val", "test")
    }
    train = prepared.parts == "train"
    for name, labels in prepared.labels.items():
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
        decision = probe.fit(latents[train], labels[train]).decision_function(latents)
        for part in ("val", "test"):
            chosen = prepared.parts == part
            auroc = float(roc_auc_score(labels[chosen], decision[chosen]))
            scores[f"{part}_{name}"] = round(auroc, 4)
    return scores


def render(results: dict[str, list[Row]]) -> str:
    """Return a table: a row per recipe, with mean ± standard deviation over seeds.

    Args:
        results: As in `ablation.json`: a row per seed, by recipe.
    """
    lines = [
        f"| recipe | seeds | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for name, rows in results.items():
        cells = [_spread([row[column] for row in rows], column) for column in COLUMNS]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], column: str) -> str:
    digits = 4 if column.endswith("l1") else 3
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
