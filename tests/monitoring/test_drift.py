"""Drift between two tables of images: what is found, what cannot be, and in which images."""

import numpy as np
import pandas as pd
import pytest

from cxrmodel.inference.bundle import read_bundle
from cxrmodel.monitoring.drift import MIN_PATIENTS, find_drift
from cxrmodel.monitoring.quantities import quantities_of, reference_of, values_of
from tests.monitoring.scored import images, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return read_bundle(write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", 400))


@pytest.fixture(scope="module")
def reference(bundle):
    return reference_of(bundle)


@pytest.fixture(scope="module")
def quantities(bundle):
    return quantities_of(bundle)


def window(num=300, **settings) -> pd.DataFrame:
    rows = images(num, seed=8, **settings)
    names = [f"{row}.png" for row in range(num)]
    return rows.assign(image=names, source="", patient=[f"p{patient}" for patient in rows.patient])


def refused(rows: pd.DataFrame, reason: str, chosen: slice) -> pd.DataFrame:
    rows = rows.copy()
    rows.loc[rows.index[chosen], "status"] = reason
    scores = list(rows.filter(regex=r"^(mu_|p_|l1|sharpness|distance)"))
    rows.loc[rows.index[chosen], scores] = np.nan
    return rows


def drifted(drift) -> set[str]:
    return set(drift.results["quantity"][drift.results["is_drift"]])


def test_a_window_like_the_reference_has_no_drift(reference, quantities):
    drift = find_drift(reference, window(), quantities)
    assert not drift.is_found
    assert drift.p > 0.05
    assert drift.untested == {"unusual": "unknown in the window"}
    tested = {quantity.name for quantity in quantities} - {"unusual"}
    assert set(drift.results["quantity"]) == {*tested, "all latents together"}
    assert drift.small_sources == ()


def test_a_latent_that_moved_is_named_with_its_images(reference, quantities):
    rows = window()
    rows.loc[rows.index[:120], "mu_03"] += 5
    drift = find_drift(reference, rows, quantities)
    assert {"mu_03", "all latents together"} <= drifted(drift)
    assert drifted(drift) <= {"mu_03", "all latents together", "distance"}
    assert set(drift.moved["image"]) <= set(rows["image"][:120])
    assert drift.moved["because"].iloc[0] == "mu_03"


@pytest.mark.parametrize(
    "column, value, name", [("view", "AP", "AP view"), ("sex", "F", "female"), ("age", 80, "age")]
)
def test_other_people_are_named(column, value, name, reference, quantities):
    rows = window()
    rows.loc[rows.index[::2], column] = value
    drift = find_drift(reference, rows, quantities)
    assert drifted(drift) == {name}


def test_lateral_views_count_neither_as_ap_nor_as_pa(quantities):
    rows = window(4).assign(view=["AP", "PA", "lateral", None])
    column = [quantity.name for quantity in quantities].index("AP view")
    assert values_of(rows, quantities)[:, column].tolist()[:2] == [1, 0]
    assert np.isnan(values_of(rows, quantities)[2:, column]).all()


def test_refusals_of_the_gate_are_compared_and_others_are_not(reference, quantities):
    inverted = find_drift(reference, refused(window(), "inverted", slice(0, 300, 12)), quantities)
    assert drifted(inverted) == {"inverted"}
    damaged = find_drift(reference, refused(window(), "damaged_image", slice(0, 40)), quantities)
    assert drifted(damaged) == set()


def test_what_the_gate_refuses_of_the_reference_has_no_scores(bundle):
    table = bundle.reference.assign(status=["inverted"] * 3 + ["ok"] * (len(bundle.reference) - 3))
    rows = reference_of(type(bundle)(**{**vars(bundle), "reference": table}))
    assert rows["mu_00"].isna().sum() == rows["l1"].isna().sum() == 3
    assert rows["unusual"].isna().sum() == 3


def test_a_bundle_of_an_older_version_is_tested_by_what_it_has(bundle, quantities):
    table = bundle.reference.drop(columns=["view", "sex", "age", "status", "source", "sharpness"])
    rows = reference_of(type(bundle)(**{**vars(bundle), "reference": table}))
    drift = find_drift(rows, window(shift=1), quantities)
    assert "mu_00" in drifted(drift)
    unknown = dict.fromkeys(["inverted", "age", "AP view"], "unknown in the reference")
    assert unknown.items() <= drift.untested.items()


def test_one_source_of_several_is_named(reference, quantities):
    rows = pd.concat([window(200), window(200, shift=1.5)], ignore_index=True)
    rows["source"] = ["north"] * 200 + ["south"] * 200
    rows["patient"] = rows["source"] + rows["patient"]
    rows = pd.concat([rows, window(20).assign(source="east", patient=range(20))], ignore_index=True)
    drift = find_drift(reference, rows, quantities)
    found = drift.results[drift.results["is_drift"] & (drift.results["quantity"] == "mu_00")]
    assert set(found["source"]) == {"all", "south"}
    assert drift.small_sources == ("east",)
    assert set(drift.results["source"]) == {"all", "north", "south"}


def test_a_source_of_the_training_is_compared_with_its_own_images(reference, quantities):
    there = images(300, seed=9, shift=3).assign(source="south")
    there["patient"] += reference["patient"].max() + 1
    both = pd.concat([reference, there], ignore_index=True)
    south = window(200, shift=3).assign(source="south")
    north = window(200).assign(source="north", patient=[f"n{row // 2}" for row in range(200)])
    drift = find_drift(both, pd.concat([south, north], ignore_index=True), quantities)
    found = drift.results[drift.results["is_drift"] & (drift.results["quantity"] == "mu_00")]
    assert "south" not in set(found["source"])
    assert "north" in set(found["source"])  # it is no source of the training


def test_what_is_known_of_few_is_not_tested(reference, quantities):
    rows = window().assign(sex=None)
    rows.loc[rows.index[40:], "age"] = None
    drift = find_drift(reference, rows.convert_dtypes(), quantities)
    assert drift.untested["female"] == "unknown in the window"
    assert drift.untested["age"] == "known of 20 patients in the window"
    assert MIN_PATIENTS > 20


def test_what_one_source_does_not_know_is_no_drift_there(reference, quantities):
    north, south = window(200), window(200, shift=0.1).assign(age=None, sex=None)
    rows = pd.concat([north.assign(source="north"), south.assign(source="south")])
    rows["patient"] = rows["source"] + rows["patient"]
    drift = find_drift(reference, rows, quantities)
    assert drift.untested["age in south"] == "unknown in the window"
    south_alone = drift.results[drift.results["source"] == "south"]
    assert not set(south_alone["quantity"]) & {"age", "female"}
    assert drifted(drift) == set()


def test_a_strict_level_with_several_sources_can_still_be_reached(reference, quantities):
    names = ("east", "north", "south")
    parts = [window(100, shift=4).assign(source=name) for name in names]
    rows = pd.concat(parts, ignore_index=True)
    rows["patient"] = rows["source"] + rows["patient"]
    drift = find_drift(reference, rows, quantities[:3], level=0.003)
    assert drift.num_permutations > 999
    found = drift.results[drift.results["is_drift"]]
    assert set(found["source"]) == {"all", *names}
