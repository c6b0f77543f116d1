"""What is compared of an image: its latents, its probabilities, how well it is rendered, who it is.

A table of images, whether of the reference or of a window, has the columns `patient`, `status`
(`ok`, the reason of a refusal, or null where nobody looked), `view`, `sex`, `age` (null where
unknown), `l1`, `sharpness`, `distance`, `unusual`, `mu_00` and so on, and `p_<label>`; the scores
are null where the image was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.inference.bundle import Bundle
from cxrmodel.inference.gate import INVERTED, NOT_A_CHEST_IMAGE
from cxrmodel.inference.image_files import OK

GATE_REASONS = (INVERTED, NOT_A_CHEST_IMAGE)
LATENTS, PROBABILITIES, RECONSTRUCTION = "latents", "probabilities", "reconstruction"
IMAGES, PEOPLE, REFUSALS = "images", "people", "refusals"
PEOPLE_COLUMNS = ("view", "sex", "age")
FINDINGS = "expected findings"
"""Sum of an image's probabilities: what rises with the prevalence of anything."""

SCORES = r"^(mu_\d+|p_.+|l1|sharpness|distance)$"


@dataclass(frozen=True)
class Quantity:
    """Something that an image has.

    Attributes:
        name: `mu_00`, `p_<label>`, `l1`, `AP view` and so on.
        kind: The part of the model or of the images that it belongs to.
        is_share: It is 1 or 0, and not a number.
    """

    name: str
    kind: str
    is_share: bool = False


def quantities_of(bundle: Bundle) -> tuple[Quantity, ...]:
    """Return what is compared of images that a bundle has scored."""
    num_dims = bundle.description["architecture"]["vae"]["latent_dim"]
    return (
        Quantity("distance", LATENTS),
        *(Quantity(f"mu_{dim:02d}", LATENTS) for dim in range(num_dims)),
        *(Quantity(f"p_{label}", PROBABILITIES) for label in bundle.labels),
        *((Quantity(FINDINGS, PROBABILITIES),) if bundle.labels else ()),
        Quantity("l1", RECONSTRUCTION),
        Quantity("unusual", RECONSTRUCTION, is_share=True),
        Quantity("sharpness", IMAGES),
        Quantity("AP view", PEOPLE, is_share=True),
        Quantity("female", PEOPLE, is_share=True),
        Quantity("age", PEOPLE),
        *(Quantity(reason, REFUSALS, is_share=True) for reason in GATE_REASONS),
    )


def values_of(table: pd.DataFrame, quantities: Sequence[Quantity]) -> NDArray[np.float64]:
    """Return the (N, F) values of N images, NaN where unknown."""
    of_status = table["status"].where(table["status"].isin([OK, *GATE_REASONS]))
    made = {
        "AP view": _is(table["view"].where(table["view"].isin(["AP", "PA"])), "AP"),
        FINDINGS: table.filter(regex="^p_").astype(np.float64).sum(axis=1, skipna=False),
        "female": _is(table["sex"].where(table["sex"].isin(["F", "M"])), "F"),
        **{reason: _is(of_status, reason) for reason in GATE_REASONS},
    }
    columns = [made.get(each.name, table.get(each.name)) for each in quantities]
    empty = np.full(len(table), np.nan)
    return np.column_stack(
        [
            empty if column is None else column.to_numpy(np.float64, na_value=np.nan)
            for column in columns
        ]
    )


def reference_of(bundle: Bundle) -> pd.DataFrame:
    """Return the reference images of a bundle as a table; what the gate refuses has no scores."""
    table = bundle.reference.drop(columns=list(bundle.reference.filter(regex="^y_")))
    for name in (*PEOPLE_COLUMNS, "status", "source"):  # a bundle of an older version lacks some
        if name not in table:
            table[name] = None
    limits = bundle.description["limits"]
    if limits["l1"] is not None:
        table["unusual"] = (table["l1"] > limits["l1"]) | (table["distance"] > limits["distance"])
    scores = [*table.filter(regex=SCORES), *(["unusual"] if "unusual" in table else [])]
    is_refused = table["status"].notna() & (table["status"] != OK)
    numbers = table[scores].astype(np.float64)
    return table.assign(**{name: numbers[name].mask(is_refused) for name in scores})


def _is(column: pd.Series, value: str) -> pd.Series:
    return (column == value).astype(np.float64).where(column.notna())
