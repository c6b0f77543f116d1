"""The groups that test images fall into: sex, age band, view, visit, and pairs of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

AGE_BANDS = (18, 40, 65)
AGE_NAMES = ("under 18", "18 to 39", "40 to 64", "65 and over")
VISITS = (1, 5)
VISIT_NAMES = ("first film", "follow-up 1 to 4", "follow-up 5 and later")
SUBGROUPS = ("sex", "age", "view")

Strata = NDArray[np.object_]


def strata_of(images: pd.DataFrame) -> dict[str, Strata]:
    """Return the group of each image by kind; None where it is not known.

    Args:
        images: N rows with `age` (years), `sex`, `view` and `follow_up`, any of them missing.
    """
    return {
        "view": _names(images["view"]),
        "sex": _names(images["sex"]),
        "age": _banded(images["age"], AGE_BANDS, AGE_NAMES),
        "follow-up": _banded(images["follow_up"], VISITS, VISIT_NAMES),
    }


def subgroups(strata: dict[str, Strata]) -> dict[str, NDArray[np.bool_]]:
    """Return the members of each group of sex, age and view, and of each pair of them."""
    single = {kind: _members(strata[kind]) for kind in SUBGROUPS}
    groups = {name: rows for kind in SUBGROUPS for name, rows in single[kind].items()}
    for one, two in combinations(SUBGROUPS, 2):
        for first, rows in single[one].items():
            for second, others in single[two].items():
                groups[f"{first}, {second}"] = rows & others
    return groups


def _members(strata: Strata) -> dict[str, NDArray[np.bool_]]:
    return {name: np.asarray(strata == name) for name in levels_of(strata)}


def levels_of(strata: Strata) -> list[str]:
    """Return the names that occur, age bands from young to old."""
    ranks = {name: rank for rank, name in enumerate(AGE_NAMES)}
    found = {str(name) for name in strata if name is not None}
    return sorted(found, key=lambda name: (ranks.get(name, 0), name))


def _names(column: pd.Series) -> Strata:
    known = column.astype(object)
    return known.where(known.notna(), None).to_numpy(dtype=object)


def _banded(column: pd.Series, bounds: tuple[int, ...], names: tuple[str, ...]) -> Strata:
    values = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    banded = np.array(names, dtype=object)[
        np.searchsorted(bounds, values, side="right").clip(max=len(bounds))
    ]
    banded[np.isnan(values)] = None
    return np.asarray(banded)
