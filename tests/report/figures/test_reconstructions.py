import dataclasses

import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.report.figures.reconstructions import choose_films
from cxrmodel.report.run import read_tables

CONFIG = ReportConfig(num_reconstructions=5)


@pytest.fixture(scope="module")
def tables(made_run):
    return read_tables(made_run.inputs)


def names(chosen):
    return [film.image for film in chosen]


def boxes(tables, parts):
    """A box of Mass in the middle of each film of some parts."""
    images = tables.images[tables.images["split"].isin(parts)]
    table = images[["image", "patient_id", "split"]].assign(pathology="Mass")
    corner, side, file = {"x": 256, "y": 512}, {"width": 512, "height": 256}, 100
    table = table.assign(**corner, **side, file_width=file, file_height=file)
    return dataclasses.replace(tables, boxes=table)


def test_films_are_of_test_and_each_seed_draws_its_own(tables):
    test = set(tables.images.loc[tables.images["split"] == "test", "image"])
    one, again, other = (
        choose_films(CONFIG.model_copy(update={"seed": seed}), tables, "crop") for seed in (1, 1, 2)
    )
    assert len(names(one["reconstructions"])) == len(set(names(one["reconstructions"]))) == 5
    assert names(one["reconstructions"]) == names(again["reconstructions"])
    assert names(one["reconstructions"]) != names(other["reconstructions"])
    assert {image for strip in one.values() for image in names(strip)} <= test


def test_extremes_are_the_best_and_the_worst_and_say_their_rank(tables):
    films = choose_films(CONFIG, tables, "crop")["extremes"]
    error = tables.latents[tables.images["split"] == "test"].set_index("image")["l1"].sort_values()
    assert names(films) == [*error.index[:3], *error.index[-3:]]
    assert [film.title for film in films][::5] == ["rank 1 of 46", "rank 46 of 46"]


def test_one_a_class_is_the_median_and_leaves_out_who_has_none(tables):
    films = choose_films(CONFIG, tables, "crop")["one_a_class"]
    titles = [film.title for film in films]
    assert "Hernia" not in titles
    assert len(titles) == 13
    table = tables.images[tables.images["split"] == "test"].merge(tables.latents, on="image")
    own = table.loc[table["Mass"] == 1].set_index("image")["l1"]
    shown = own[films[titles.index("Mass")].image]
    assert abs((own < shown).sum() - (own > shown).sum()) <= 1


def test_boxed_films_are_of_test_first_then_of_validation_and_never_of_train(tables):
    assert "boxed" not in choose_films(CONFIG, boxes(tables, ["train"]), "crop")
    found = choose_films(CONFIG, boxes(tables, ["train", "val", "test"]), "crop")["boxed"]
    split = tables.images.set_index("image")["split"]
    assert [split[film.image] for film in found] == ["test"] * 6
    assert {film.title for film in found} == {"Mass"}
    assert np.array_equal(found[0].boxes, [[0.25, 0.5, 0.75, 0.75]])
    few = boxes(tables, ["val"])
    one = tables.images.loc[tables.images["split"] == "test", "image"].iloc[:1]
    of_test = boxes(tables, ["test"]).boxes
    mixed = pd.concat([few.boxes, of_test[of_test["image"].isin(one)]])
    found = choose_films(CONFIG, dataclasses.replace(few, boxes=mixed), "crop")["boxed"]
    assert [film.title for film in found] == ["Mass"] + ["Mass (validation)"] * 5
