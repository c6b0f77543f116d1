"""Drift: how a window of scored images differs from the images that a model was validated on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrmodel.monitoring.permutation import NUM_PERMUTATIONS, compare_patients
from cxrmodel.monitoring.quantities import LATENTS, Quantity, values_of

MIN_PATIENTS = 50
"""Of a window, and of the reference: of fewer, a test says little."""

EVERYTHING = "all"
TOGETHER = Quantity("all latents together", LATENTS)
LEVEL = 0.05
PER_LEVEL = 5  # permutations below the level of one comparison: of fewer, none might be drift
NUM_SHOWN = 12  # images that moved a window most
NOTHING_MOVED = pd.DataFrame(
    {name: pd.Series(dtype="str") for name in ("image", "source", "because")}
)

RESULT_COLUMNS = (
    "source", "quantity", "kind", "is_share", "reference", "window", "effect", "z", "p", "p_family",
    "num_patients", "is_drift",
)  # fmt: skip


@dataclass(frozen=True)
class Drift:
    """What is known of a window.

    Attributes:
        results: A row per source and quantity, the strongest first: `source` (`all`, or one of
            the window's); `quantity`, its `kind` and whether it is a share; its mean over the
            patients of `reference` and `window`; `effect`, as in `Differences`; `z`; `p`;
            `p_family`, which is below the level in at most that share of windows where nothing has
            changed; `num_patients` of the window of whom it is known; `is_drift`.
        moved: Images of the window that moved it most, of each kind in turns: `image`, `source`,
            `because`, the quantity in which it counts most.
        untested: Why a quantity was not tested, by name, or `<name> in <source>` where it was not
            in a source alone.
        small_sources: Sources with too few patients to be tested by themselves.
        num_permutations: Of each comparison; 0 where nothing could be tested.
    """

    results: pd.DataFrame
    moved: pd.DataFrame
    untested: dict[str, str]
    small_sources: tuple[str, ...]
    num_permutations: int

    @property
    def p(self) -> float:
        """How often a window without drift shows as much, in anything."""
        return float(self.results["p_family"].min())

    @property
    def is_found(self) -> bool:
        """Whether something has drifted."""
        return bool(self.results["is_drift"].any())


@dataclass(frozen=True)
class _Comparison:
    """Quantities that both sides know of enough patients."""

    source: str
    reference: pd.DataFrame
    window: pd.DataFrame
    tested: tuple[Quantity, ...]


def find_drift(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    quantities: Sequence[Quantity],
    *,
    level: float = LEVEL,
) -> Drift:
    """Compare a window of images with the reference, as a whole and source by source.

    Args:
        reference: A table of images, as `cxrmodel.monitoring.quantities` tells.
        window: Likewise, with `image` and `source`.
        quantities: What to compare.
        level: Share of windows without drift in which something may be called drift.
    """
    sizes = window.groupby("source")["patient"].nunique()
    large = [str(name) for name in sizes.index[sizes >= MIN_PATIENTS]] if len(sizes) > 1 else []
    small = tuple(str(name) for name in sizes.index if name not in large) if len(sizes) > 1 else ()
    tested, untested = _testable(reference, window, quantities)
    comparisons = [_Comparison(EVERYTHING, reference, window, tested)] if tested else []
    unknown = dict(untested)
    for name in large:
        sides = _own_reference(reference, name), window[window["source"] == name]
        own, why_not = _testable(*sides, tested)
        comparisons += [_Comparison(name, *sides, own)] if own else []
        unknown |= {f"{quantity} in {name}": why for quantity, why in why_not.items()}
    if not comparisons:
        return Drift(pd.DataFrame(columns=list(RESULT_COLUMNS)), NOTHING_MOVED, unknown, small, 0)
    number = max(NUM_PERMUTATIONS, math.ceil(PER_LEVEL * len(comparisons) / level) - 1)
    results = _judged([_compare(each, number) for each in comparisons], level)
    moved = _most_moved(reference, window, tested, results)
    return Drift(results, moved, unknown, small, number)


def _judged(tables: Sequence[pd.DataFrame], level: float) -> pd.DataFrame:
    """Return the results of all comparisons, the strongest first."""
    results = pd.concat(tables, ignore_index=True)
    results["p_family"] = (results["p_family"] * len(tables)).clip(upper=1.0)
    results["is_drift"] = results["p_family"] <= level
    order = results.assign(size=-results["z"].abs()).sort_values(
        ["p_family", "size"], kind="stable"
    )
    return results.loc[order.index, list(RESULT_COLUMNS)].reset_index(drop=True)


def _testable(
    reference: pd.DataFrame, window: pd.DataFrame, quantities: Sequence[Quantity]
) -> tuple[tuple[Quantity, ...], dict[str, str]]:
    """Return what both sides know of enough patients, and why not of the others."""
    tested, untested = [], {}
    sides = {"reference": reference, "window": window}
    values = {side: values_of(table, quantities) for side, table in sides.items()}
    for column, quantity in enumerate(quantities):
        for side, table in sides.items():
            num = table["patient"][~np.isnan(values[side][:, column])].nunique()
            if num < MIN_PATIENTS:
                said = f"known of {num} patients" if num else "unknown"
                untested[quantity.name] = f"{said} in the {side}"
                break
        else:
            tested.append(quantity)
    return tuple(tested), untested


def _own_reference(reference: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the reference images of a source of the same name, or all where there are few."""
    own = reference[(reference["source"] == source).fillna(False).astype(bool)]
    return own if own["patient"].nunique() >= MIN_PATIENTS else reference


def _compare(comparison: _Comparison, num_permutations: int) -> pd.DataFrame:
    """Return the results of one comparison; `p_family` is that of its own tests."""
    reference, window, tested = comparison.reference, comparison.window, comparison.tested
    tables = (reference, window)
    values = [values_of(table, tested) for table in tables]
    codes = [pd.factorize(table["patient"])[0].astype(np.int64) for table in tables]
    joint = np.array([quantity.name.startswith("mu_") for quantity in tested])
    found = compare_patients(
        np.concatenate(values),
        np.array([quantity.is_share for quantity in tested]),
        joint,
        np.concatenate([codes[0], codes[0].max() + 1 + codes[1]]),
        np.repeat([False, True], [len(reference), len(window)]),
        num_permutations=num_permutations,
    )
    names = [*tested, TOGETHER] if joint.any() else list(tested)
    means = [_means(own, code, len(names)) for own, code in zip(values, codes, strict=True)]
    known = [int(window["patient"][~np.isnan(own)].nunique()) for own in values[1].T]
    columns = {
        "source": comparison.source,
        "quantity": [quantity.name for quantity in names],
        "kind": [quantity.kind for quantity in names],
        "is_share": [quantity.is_share for quantity in names],
        "reference": means[0],
        "window": means[1],
        "effect": found.effect,
        "z": found.z,
        "p": found.p,
        "p_family": found.p_adjusted,
        "num_patients": [*known, *[max(known)] * (len(names) - len(known))],
    }
    return pd.DataFrame(columns)


def _means(
    values: NDArray[np.float64], patients: NDArray[np.int64], num_rows: int
) -> NDArray[np.float64]:
    """Return the mean of each quantity over patients, followed by NaN up to a number of rows."""
    by_patient = pd.DataFrame(values).groupby(patients).mean()
    return by_patient.mean().reindex(range(num_rows)).to_numpy(np.float64)


def _most_moved(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    tested: Sequence[Quantity],
    results: pd.DataFrame,
) -> pd.DataFrame:
    """Return the images that lie furthest where the window has moved, of each kind in turns."""
    whole = results[results["source"] == EVERYTHING].set_index("quantity")["z"]
    drifted = set(results["quantity"][results["is_drift"]]) - {TOGETHER.name}
    moving = [each for each in tested if each.name in drifted] or [
        max(tested, key=lambda each: abs(whole[each.name]))
    ]
    pushes = pd.DataFrame(_pushes(reference, window, moving, whole))
    best = {}
    for kind in dict.fromkeys(quantity.kind for quantity in moving):
        columns = [at for at, quantity in enumerate(moving) if quantity.kind == kind]
        own = pushes[columns]
        total = own.sum(axis=1)
        order = total[total > 0].sort_values(ascending=False, kind="stable").index[:NUM_SHOWN]
        best[kind] = [(row, moving[int(own.loc[row].idxmax())].name) for row in order]
    turns = (turn for several in zip_longest(*best.values()) for turn in several if turn)
    chosen: dict[int, str] = {}
    for row, because in turns:
        chosen.setdefault(row, because)
    first = dict(islice(chosen.items(), NUM_SHOWN))
    rows = window.iloc[list(first)][["image", "source"]].reset_index(drop=True)
    return rows.assign(because=pd.Series(list(first.values()), dtype="str"))


def _pushes(
    reference: pd.DataFrame, window: pd.DataFrame, moving: Sequence[Quantity], z: pd.Series
) -> NDArray[np.float64]:
    """Return how far each image of N lies where each of F quantities moves, (N, F), times its z."""
    usual, here = values_of(reference, moving), values_of(window, moving)
    spread = np.nanstd(usual, axis=0)
    spread = np.where(spread > 0, spread, np.nanstd(here, axis=0))
    centred = here - np.nanmean(usual, axis=0)
    far = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)
    return np.asarray(np.nan_to_num(far) * [z[quantity.name] for quantity in moving])
