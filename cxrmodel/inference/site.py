"""From a bundle and an indexed data set of another site to the model's figures there.

The site's images are scored shard by shard, as `flows/score.py` does: a run that was killed goes on
at the shard, and a second run finds all scores there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.config import EVALUATIONS_FOLDER
from cxrmodel.data.datasets.shared_names import shared_names
from cxrmodel.data.files.root import is_joint
from cxrmodel.data.images.reader import read_listing
from cxrmodel.data.label_columns import LABEL_DTYPE, label_names, label_values
from cxrmodel.errors import DataError
from cxrmodel.evaluation.calibration import Calibrator
from cxrmodel.evaluation.patient_bootstrap import Estimate
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.evaluation.sites import (
    OVERLAPS,
    Frozen,
    Place,
    SiteFindings,
    compare_places,
    unjudged_labels,
)
from cxrmodel.inference.bundle import Bundle, read_bundle
from cxrmodel.inference.image_files import OK
from cxrmodel.inference.local_gain import gain_of_labels
from cxrmodel.inference.scoring import ScoringPlan, plan_listed, read_scores
from cxrmodel.inference.seen import HASHES_UNKNOWN, SeenImages, refuse_overlap
from cxrmodel.inference.use_config import EvaluateConfig
from cxrmodel.places import absolute
from cxrmodel.storage.layout import EXCLUDED_FILE, INDEX_FILE, NOTES_FILE

SCORES_OF_SITES = "_scores"  # below the folder of evaluations
COVARIATES = ["view", "sex", "age", "follow_up"]
SHOWN_CHARS = 16  # of a digest
NO_HOME = (
    "The bundle was made before bundles had the scores of their test images, so there is no "
    "column for home and no difference. Make it again by running its training: with the same "
    "data and settings only its last stage runs."
)
RECALIBRATED = (
    "The bundle was recalibrated on local labels. Where images of this site were among them, its "
    "thresholds and probabilities look better here than they are."
)


@dataclass(frozen=True)
class SitePlan:
    """What is to be scored, and where it comes from.

    Attributes:
        scoring: The images that have no score yet.
        index: Local folder of the site's index stage.
        fingerprint: sha256 of the content of the site's index and listing.
        labels: Labels of the bundle that the site has, and the site's columns for each.
    """

    scoring: ScoringPlan
    index: Path
    fingerprint: str
    labels: dict[str, list[str]]


def plan_site(
    config: EvaluateConfig, bundle: str, root: str, index: Path, fingerprint: str
) -> SitePlan:
    """Check what can be checked before anything is scored, and find what has no score yet.

    Args:
        config: Settings.
        bundle: Place of the bundle.
        root: Folder or URL of the site's images, as its index stage read it.
        index: Local folder of that stage.
        fingerprint: sha256 of its content.

    Raises:
        DataError: The bundle and the site have no label in common, or patients in common.
        CxrModelError: The bundle or earlier scores cannot be used.
    """
    found = read_bundle(bundle)
    labels = _common_labels(found, label_names(index / INDEX_FILE), root)
    rows = pd.read_parquet(index / INDEX_FILE, columns=["image", "patient_id"])
    if not config.leave_out_overlap:
        of_patients = SeenImages(found).patients(rows["patient_id"])
        overlaps = pd.DataFrame({"patients": of_patients})
        refuse_overlap(rows["image"], overlaps, config.allow_overlap)
    place = root if is_joint(root) else absolute(root, Path.cwd())
    out = f"{config.store.root}/{EVALUATIONS_FOLDER}/{SCORES_OF_SITES}"
    _, files = read_listing(index)
    listed = sorted(files, key=lambda file: file.uri)
    scoring = plan_listed(bundle, found.digest, place, out, listed, describes=True)
    return SitePlan(scoring, index, fingerprint, labels)


def place_of_result(config: EvaluateConfig, plan: SitePlan) -> str:
    """Return the folder or URL of the page and the numbers."""
    names = f"{plan.scoring.digest[:SHOWN_CHARS]}/{plan.fingerprint[:SHOWN_CHARS]}"
    return config.out or f"{config.store.root}/{EVALUATIONS_FOLDER}/{names}"


def _common_labels(bundle: Bundle, of_site: tuple[str, ...], root: str) -> dict[str, list[str]]:
    """Return the labels that both have, by the bundle's names."""
    names = shared_names([bundle.labels, of_site])
    common = {
        label: [name for name in of_site if names[name] == names[label]] for label in bundle.labels
    }
    common = {label: columns for label, columns in common.items() if columns}
    if not common:
        raise DataError(
            f"The bundle and the site have no label in common. The bundle tells "
            f"{', '.join(bundle.labels) or 'nothing'}; {root} has labels for "
            f"{', '.join(of_site) or 'nothing'}. Give a data set with a label that the bundle "
            "tells; in a table of your own, name its column so (data.columns.labels)."
        )
    return common


def evaluate_site(config: EvaluateConfig, plan: SitePlan) -> tuple[SiteFindings, pd.DataFrame]:
    """Judge the model at the site, once every image has a score.

    Args:
        config: Settings.
        plan: Of the site.

    Returns:
        What was found, and a row per image of the site's index with its labels and scores.

    Raises:
        DataError: Images of train or validation are there and not allowed, or nothing can be
            judged.
    """
    bundle = read_bundle(plan.scoring.bundle)
    table = _table(plan, bundle)
    seen = SeenImages(bundle)
    overlaps = _overlaps(seen, table)
    if not config.leave_out_overlap:
        refuse_overlap(table["image"], overlaps, config.allow_overlap)
    unwanted = overlaps.drop(columns=list(config.allow_overlap)).any(axis=1)
    table["overlap"] = [", ".join(overlaps.columns[kinds]) for kinds in overlaps.to_numpy()]
    table["is_judged"] = is_judged = (table["status"] == OK) & ~unwanted
    _check_some(table, overlaps)
    site, home = _places(table[is_judged].reset_index(drop=True), bundle, seen, list(plan.labels))
    unjudged = unjudged_labels(site.predictions, home.predictions if home else None)
    labels = tuple(label for label in plan.labels if label not in unjudged)
    if not labels:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in unjudged.items())
        raise DataError(
            f"No label can be judged at {plan.scoring.root}: {reasons}. Give images with and "
            "without at least one finding."
        )
    frozen = frozen_of(bundle, labels)
    site, home = site.of(labels), home.of(labels) if home else None
    found = SiteFindings(
        comparison=compare_places(site, home, frozen, seed=config.seed),
        gain=(
            gain_of_labels(
                site.predictions, frozen.thresholds, config.recalibrate, seed=config.seed
            )
            if config.recalibrate
            else None
        ),
        left_out=unjudged | _missing(bundle, plan),
        excluded=_excluded(plan, table),
        overlaps=_counts(overlaps),
        judged_overlaps=_counts(overlaps[is_judged]),
        num_left_out=int(((table["status"] == OK) & unwanted).sum()),
        refusals=dict(Counter(reason for reason in table["gate"][is_judged] if reason)),
        num_home_images=_num_home_images(bundle, table[is_judged]),
        notes=_notes(plan, bundle, seen),
        origin=_origin(config, plan, bundle),
    )
    return found, table


def _table(plan: SitePlan, bundle: Bundle) -> pd.DataFrame:
    """Return a row per image of the index: what is known of it, its labels and its scores."""
    index = pd.read_parquet(plan.index / INDEX_FILE)
    scores = read_scores(plan.scoring, read_listing(plan.index)[1]).drop(
        columns=["image", "bundle"]
    )
    about = index[["image", "patient_id", *COVARIATES]].reset_index(drop=True)
    truth = {
        f"y_{label}": index[columns].max(axis=1).astype(LABEL_DTYPE)
        for label, columns in plan.labels.items()
    }
    others = [
        f"{kind}_{x}" for kind in ("p", "call") for x in bundle.labels if x not in plan.labels
    ]
    return pd.concat([about, pd.DataFrame(truth), scores.drop(columns=others)], axis="columns")


def _overlaps(seen: SeenImages, table: pd.DataFrame) -> pd.DataFrame:
    """Return which images are of train or validation, a column per kind."""
    has_pixels = table["hash"].notna().to_numpy()
    joined = b"".join(table["hash"][has_pixels])
    hashes = np.frombuffer(joined, np.uint8).reshape(int(has_pixels.sum()), -1)
    equal = seen.pixels(table["crc32"][has_pixels].to_numpy(np.int64), hashes)
    found = pd.DataFrame(False, table.index, list(OVERLAPS))
    found.loc[has_pixels, "pixels"] = equal
    found.loc[has_pixels, "near"] = seen.near(hashes) & ~equal
    found["patients"] = seen.patients(table["patient_id"])
    return found


def _counts(overlaps: pd.DataFrame) -> dict[str, int]:
    return {str(kind): int(count) for kind, count in overlaps.sum().items()}


def _check_some(table: pd.DataFrame, overlaps: pd.DataFrame) -> None:
    if table["is_judged"].any():
        return
    statuses = Counter(map(str, table["status"]))
    counts: dict[str, int] = statuses | _counts(overlaps)
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    raise DataError(
        f"None of the {len(table):,} images is left to judge by ({shown}). Give images that the "
        "bundle was not made with, and that can be read."
    )


def _places(
    table: pd.DataFrame, bundle: Bundle, seen: SeenImages, labels: list[str]
) -> tuple[Place, Place | None]:
    """Return the site's images and the test images at home; one patient has one number."""
    site_patients = seen.hashes_of(table["patient_id"])
    home = bundle.test
    if home is None:
        codes = pd.factorize(site_patients)[0].astype(np.int64)
        return place_of(table, labels, codes), None
    codes = pd.factorize(pd.concat([home["patient"], site_patients]))[0].astype(np.int64)
    return (
        place_of(table, labels, codes[len(home) :]),
        place_of(home, labels, codes[: len(home)]),
    )


def place_of(scored: pd.DataFrame, labels: list[str], patients: NDArray[np.int64]) -> Place:
    """Return the images of one place.

    Args:
        scored: N rows with `y_<label>` and `p_<label>`, and `view`, `sex`, `age` and `follow_up`
            where they are known.
        labels: Which ones.
        patients: (N,), one number per patient.
    """
    predictions = Predictions(
        tuple(labels),
        label_values(scored, [f"y_{label}" for label in labels]),
        scored[[f"p_{label}" for label in labels]].to_numpy(np.float64),
        patients,
    )
    return Place(predictions, scored.reindex(columns=COVARIATES))


def frozen_of(bundle: Bundle, labels: tuple[str, ...]) -> Frozen:
    """Return what a bundle brings from home for some of its labels."""
    thresholds = bundle.description["thresholds"]
    scaling = bundle.description["calibration"]
    reference = bundle.reference
    return Frozen(
        {label: _threshold(thresholds[label]) for label in labels},
        {
            label: Calibrator(
                scaling[label]["slope"],
                scaling[label]["intercept"],
                None if scaling[label]["slope"] is not None else "not fitted at home",
            )
            for label in labels
        },
        place_of(reference, list(labels), reference["patient"].to_numpy(np.int64)),
    )


def _threshold(value: float | None) -> Estimate:
    return Estimate.undefined("none was found at home") if value is None else Estimate(value)


def _missing(bundle: Bundle, plan: SitePlan) -> dict[str, str]:
    lacking = [label for label in bundle.labels if label not in plan.labels]
    columns = {name for names in plan.labels.values() for name in names}
    further = [x for x in label_names(plan.index / INDEX_FILE) if x not in columns]
    return dict.fromkeys(lacking, "the site has no such label") | dict.fromkeys(
        further, "the bundle does not tell it"
    )


def _excluded(plan: SitePlan, table: pd.DataFrame) -> pd.DataFrame:
    """Return ledger rows: what the index left out, and what could not be scored."""
    index = pd.read_parquet(plan.index / EXCLUDED_FILE)
    unread = table[table["status"] != OK]
    scores = pd.DataFrame(
        {"image": unread["image"], "reason": unread["status"], "detail": unread["detail"]}
    )
    ledgers = [index.assign(stage="index"), scores.assign(stage="score")]
    return pd.concat(ledgers, ignore_index=True)[["stage", "image", "reason", "detail"]]


def _num_home_images(bundle: Bundle, judged: pd.DataFrame) -> int:
    if bundle.test is None:
        return 0
    return int(judged["crc32"].isin(bundle.test["crc32"].astype("UInt32")).sum())


def _notes(plan: SitePlan, bundle: Bundle, seen: SeenImages) -> list[str]:
    notes: list[str] = json.loads((plan.index / NOTES_FILE).read_text("utf-8"))
    return [
        *([NO_HOME] if bundle.test is None else []),
        *([] if seen.is_complete else [HASHES_UNKNOWN]),
        *([RECALIBRATED] if "parent" in bundle.description else []),
        *notes,
    ]


def _origin(config: EvaluateConfig, plan: SitePlan, bundle: Bundle) -> dict[str, Any]:
    """Return where the figures come from; the same inputs give the same."""
    settings = config.model_dump(mode="json", exclude={"store", "out", "device"})
    text = json.dumps([settings, bundle.digest, plan.fingerprint], sort_keys=True)
    return {
        "made_by": f"cxrmodel {version('cxrmodel')}",
        "bundle": {
            "digest": bundle.digest,
            "made_by": bundle.description.get("made_by"),
            "data": bundle.description["data"]["title"],
            "provenance": bundle.description.get("provenance"),
        },
        "data": {"root": plan.scoring.root, "fingerprint": plan.fingerprint},
        "settings": settings,
        "fingerprint": hashlib.sha256(text.encode()).hexdigest(),
    }
