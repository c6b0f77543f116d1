import dataclasses

import numpy as np
import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.report.figures.reconstructions import (
    Selection,
    error_limit,
    make_example,
    select_images,
)

CONFIG = ReportConfig(num_reconstructions=5)


def names(selected):
    return [selection.image for selection in selected]


def boxes(run, parts):
    """A box of Mass in the middle of each image of some parts."""
    images = run.images[run.images["split"].isin(parts)]
    table = images[["image", "patient_id", "split"]].assign(pathology="Mass")
    corner, side, file = {"x": 256, "y": 512}, {"width": 512, "height": 256}, 100
    table = table.assign(**corner, **side, file_width=file, file_height=file)
    return dataclasses.replace(run, boxes=table)


def test_images_are_of_test_and_each_seed_draws_its_own(run):
    test = set(run.images.loc[run.images["split"] == "test", "image"])
    one, again, other = (
        select_images(CONFIG.model_copy(update={"seed": seed}), run) for seed in (1, 1, 2)
    )
    assert len(names(one["reconstructions"])) == len(set(names(one["reconstructions"]))) == 5
    assert names(one["reconstructions"]) == names(again["reconstructions"])
    assert names(one["reconstructions"]) != names(other["reconstructions"])
    assert {image for strip in one.values() for image in names(strip)} <= test


def test_extremes_are_the_best_and_the_worst_and_say_their_rank(run):
    selected = select_images(CONFIG, run)["extremes"]
    error = run.latents[run.images["split"] == "test"].set_index("image")["l1"].sort_values()
    assert names(selected) == [*error.index[:3], *error.index[-3:]]
    assert [one.l1 for one in selected] == error[names(selected)].tolist()
    assert [one.title for one in selected][::5] == ["rank 1 of 46", "rank 46 of 46"]


def test_one_per_pathology_is_the_median_and_leaves_out_those_without_an_image(run):
    selected = select_images(CONFIG, run)["one_per_pathology"]
    titles = [one.title for one in selected]
    assert "Hernia" not in titles
    assert len(titles) == 13
    table = run.images[run.images["split"] == "test"].merge(run.latents, on="image")
    own = table.loc[table["Mass"] == 1].set_index("image")["l1"]
    shown = own[selected[titles.index("Mass")].image]
    assert abs((own < shown).sum() - (own > shown).sum()) <= 1


def test_boxed_images_are_of_test_first_then_of_validation_and_never_of_train(run):
    assert "boxed" not in select_images(CONFIG, boxes(run, ["train"]))
    found = select_images(CONFIG, boxes(run, ["train", "val", "test"]))["boxed"]
    split = run.images.set_index("image")["split"]
    assert [split[one.image] for one in found] == ["test"] * 6
    assert {one.title for one in found} == {"Mass"}
    assert np.array_equal(found[0].boxes, [[0.25, 0.5, 0.75, 0.75]])
    few = boxes(run, ["val"])
    one = run.images.loc[run.images["split"] == "test", "image"].iloc[:1]
    of_test = boxes(run, ["test"]).boxes
    mixed = pd.concat([few.boxes, of_test[of_test["image"].isin(one)]])
    found = select_images(CONFIG, dataclasses.replace(few, boxes=mixed))["boxed"]
    assert [one.title for one in found] == ["Mass"] + ["Mass (validation)"] * 5


def test_errors_are_measured_at_full_size_and_shown_on_one_scale():
    board = (np.indices((1024, 1024)).sum(axis=0) % 2).astype(np.float32)
    example = make_example(Selection("a.png", 0.5), board, np.full_like(board, 0.5))
    assert example.error.shape == (512, 512)
    assert example.error == pytest.approx(0.5)  # averaged after the difference, not before
    assert error_limit([example]) == 0.5
    same = make_example(Selection("b.png", 0), board, board)
    assert error_limit([example, same]) == 0.5  # of both
    assert error_limit([same]) == 0.05
