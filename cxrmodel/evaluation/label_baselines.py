"""What can be predicted without a pixel: from age, sex and view, and from knowing the patient."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

MAX_ITERATIONS = 1_000
UNKNOWN = "unknown"


def fit_logistic(
    model: Pipeline, features: NDArray[np.float64] | pd.DataFrame, labels: NDArray[np.uint8],
    in_train: NDArray[np.bool_],
) -> NDArray[np.float32]:  # fmt: skip
    """Fit on train rows and predict all; the prevalence where train holds only one class.

    Args:
        model: Ends in a classifier.
        features: (N, F).
        labels: (N,), of one pathology.
        in_train: (N,).

    Returns:
        (N,) probabilities.
    """
    known = labels[in_train]
    if known.min() == known.max() or not features.shape[1]:
        return np.full(len(labels), known.mean(), dtype=np.float32)
    model.fit(features[in_train], known)
    return np.asarray(model.predict_proba(features)[:, 1], dtype=np.float32)


def predict_from_metadata(
    images: pd.DataFrame, labels: NDArray[np.uint8], in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Predict from age, sex and view with a logistic regression per pathology.

    Args:
        images: N rows with `age` (years), `sex` and `view`, any of them missing.
        labels: (N, C).
        in_train: (N,), which rows to fit on.

    Returns:
        (N, C) probabilities.
    """
    features = pd.DataFrame(
        {
            "age": pd.to_numeric(images["age"]).astype("float64").to_numpy(),
            "sex": images["sex"].astype(object).fillna(UNKNOWN).to_numpy(),
            "view": images["view"].astype(object).fillna(UNKNOWN).to_numpy(),
        }
    )
    columns = [
        fit_logistic(_metadata_model(), features, labels[:, column], in_train)
        for column in range(labels.shape[1])
    ]
    return np.stack(columns, axis=1)


def _metadata_model() -> Pipeline:
    age = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    kinds = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    transformer = make_column_transformer((age, ["age"]), (kinds, ["sex", "view"]))
    return make_pipeline(transformer, LogisticRegression(max_iter=MAX_ITERATIONS))


def remember_patients(
    patients: pd.Series, labels: NDArray[np.uint8], in_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Predict what the same patient's train images are labelled: what a leak is worth.

    The patient's mean label, with the prevalence in train as one more image, so that a patient
    whom train does not hold gets the prevalence. A train image does not see its own label.

    Args:
        patients: (N,), an identity a row.
        labels: (N, C).
        in_train: (N,).

    Returns:
        (N, C) probabilities.
    """
    codes = pd.factorize(patients)[0]
    own = labels * in_train[:, None]  # (N, C)
    sums = np.zeros((codes.max() + 1, labels.shape[1]))
    np.add.at(sums, codes, own)
    counts = np.bincount(codes, in_train)
    others, num_others = sums[codes] - own, (counts[codes] - in_train)[:, None]
    prevalence = labels[in_train].mean(axis=0)
    return np.asarray((others + prevalence) / (num_others + 1), dtype=np.float32)
