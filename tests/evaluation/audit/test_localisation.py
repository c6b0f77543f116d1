import numpy as np
import pandas as pd
import pytest

from cxrmodel.evaluation.audit import localisation
from cxrmodel.evaluation.audit.localisation import localise, score_cases


def make_boxes(*rows):
    names = ["image", "patient_id", "pathology", "left", "top", "right", "bottom"]
    return pd.DataFrame(rows, columns=names)


TWO = make_boxes(
    ("a", "7", "Mass", 0.0, 0.0, 0.5, 0.5),
    ("a", "7", "Nodule", 0.5, 0.0, 1.0, 0.5),
    ("b", "8", "Mass", 0.0, 0.0, 0.5, 0.5),
    ("b", "8", "Mass", 0.5, 0.5, 1.0, 1.0),
)


def in_corner(image):
    """Error 0.3 in the upper left quarter of one film and in the lower right of the other."""
    error = np.full((64, 64), 0.1, np.float32)
    error[(slice(32), slice(32)) if image == "a" else (slice(32, 64), slice(32, 64))] = 0.3
    return error


def test_cases_by_hand():
    cases = score_cases(TWO, in_corner).set_index(["image", "pathology"])
    assert cases["num_boxes"].to_dict() == {("a", "Mass"): 1, ("a", "Nodule"): 1, ("b", "Mass"): 2}
    assert cases["hit"].tolist() == [1, 0, 1]
    assert cases["chance"].tolist() == [0.25, 0.25, 0.5]
    assert cases["inside"].tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert cases["outside"].tolist() == pytest.approx([0.1, (0.3 + 0.2) / 3, 0.1])
    assert cases["other_films"].tolist() == [0, 0, 1]  # a's point is in a box of b


def test_groups_by_hand():
    found = localise(TWO, in_corner, num_resamples=50)
    assert list(found.per_class) == ["Mass", "Nodule"]
    overall, nodule = found.overall, found.per_class["Nodule"]
    assert (overall.num_boxes, overall.num_images, overall.num_patients) == (4, 2, 2)
    assert overall.pointing_game.value == pytest.approx(2 / 3)
    assert overall.chance.value == pytest.approx(1 / 3)
    assert overall.gain.value == pytest.approx(1 / 3)
    assert overall.gain_over_other_films.value == pytest.approx(1 / 3)
    assert overall.error_difference.value == pytest.approx((0.2 - 0.2 / 3 + 0.1) / 3)
    assert overall.gain.interval == pytest.approx((0.25, 0.5))  # a twice, or b twice
    assert (nodule.pointing_game.value, nodule.pointing_game.interval) == (0, None)  # one patient
    assert nodule.warning.startswith("1 patient: fewer than 10")


def test_a_patient_is_drawn_with_all_its_films():
    boxes = make_boxes(*((f"{n}", str(n // 6), "Mass", 0, 0, 0.5, 0.5) for n in range(60)))

    def error(image):  # all films of a patient hit or none does
        return in_corner("a" if int(image) // 6 % 2 else "b")

    low, high = localise(boxes, error, num_resamples=400).overall.pointing_game.interval
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.11)  # 10 patients, not 60 films
    spread = boxes.assign(patient_id=boxes["image"])
    low, high = localise(spread, error, num_resamples=400).overall.pointing_game.interval
    assert high - low < 0.3


def random_boxes(rng, count):
    corners = rng.uniform(0, 0.7, (count, 2))
    sides = rng.uniform(0.1, 0.3, (count, 2))
    return make_boxes(
        *(
            (f"{row:03d}", str(row), "Mass", *corner, *(corner + side))
            for row, (corner, side) in enumerate(zip(corners, sides, strict=True))
        )
    )


def test_errors_only_in_the_box_are_found_in_every_case():
    boxes = random_boxes(np.random.default_rng(0), 40)

    def error(image):
        row = boxes.set_index("image").loc[image]
        film = np.zeros((512, 512), np.float32)
        left, top, right, bottom = (round(512 * row[side]) for side in boxes.columns[3:])
        film[top:bottom, left:right] = 0.2
        return film

    found = localise(boxes, error, num_resamples=100).overall
    assert found.pointing_game.value == 1
    assert found.gain.interval[0] > 0.8
    assert found.error_inside.value > 0.19
    assert found.error_outside.value < 0.01
    assert found.warning is None


def test_noise_is_found_at_the_rate_of_chance():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 250)
    found = localise(
        boxes, lambda _: rng.random((128, 128), dtype=np.float32), num_resamples=200
    ).overall
    for gain in (found.gain, found.gain_over_other_films, found.error_difference):
        assert gain.interval[0] < 0 < gain.interval[1]
        assert gain.value == pytest.approx(0, abs=0.02)
    assert found.chance.value == pytest.approx(0.04, abs=0.005)


def test_an_error_at_one_place_everywhere_is_anatomy_and_no_finding():
    rng = np.random.default_rng(2)
    centres = 0.5 + 0.05 * rng.normal(size=(60, 2))
    boxes = make_boxes(
        *(
            (f"{row:03d}", str(row), "Cardiomegaly", *(centre - 0.1), *(centre + 0.1))
            for row, centre in enumerate(centres)
        )
    )
    error = np.zeros((64, 64), np.float32)
    error[30:34, 30:34] = 0.5
    found = localise(boxes, lambda _: error, num_resamples=200).overall
    assert found.gain.interval[0] > 0.5
    assert found.gain_over_other_films.value == pytest.approx(0)


def test_a_box_without_a_pixel_is_left_out_and_nothing_at_all_is_undefined():
    gone = make_boxes(("a", "7", "Mass", 0.3, 0.3, 0.3, 0.3))
    for boxes in (gone, gone[:0]):
        found = localise(boxes, in_corner, num_resamples=3)
        assert found.per_class == {}
        assert found.overall.num_boxes == 0
        assert found.overall.pointing_game.metric.reason == "no film with a box"
        assert found.overall.warning is None


def test_of_many_images_some_are_drawn_and_one_is_read_at_a_time(monkeypatch):
    monkeypatch.setattr(localisation, "MAX_IMAGES", 5)
    boxes, read = random_boxes(np.random.default_rng(3), 20), []

    def error(image):
        read.append(image)
        return in_corner(image)

    assert localise(boxes, error, num_resamples=2).overall.num_images == 5
    first, read[:] = list(read), []
    localise(boxes, error, num_resamples=2)
    assert read == first
    assert len(set(read)) == 5
