import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.evaluation.audit import localisation
from cxrmodel.evaluation.audit.localisation import (
    are_inside,
    boxes_on_square,
    localise,
    mask_of,
    score_cases,
)


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
    """Error 0.3 in the upper left quarter of one image and in the lower right of the other."""
    error = np.full((64, 64), 0.1, np.float32)
    error[(slice(32), slice(32)) if image == "a" else (slice(32, 64), slice(32, 64))] = 0.3
    return error


def each(error):
    """Error maps of a batch from those of one image."""
    return lambda images: np.stack([error(image) for image in images])


def test_cases_by_hand():
    cases = score_cases(TWO, each(in_corner)).set_index(["image", "pathology"])
    assert cases["num_boxes"].to_dict() == {("a", "Mass"): 1, ("a", "Nodule"): 1, ("b", "Mass"): 2}
    assert cases["hit"].tolist() == [1, 0, 1]
    assert cases["chance"].tolist() == [0.25, 0.25, 0.5]
    assert cases["inside"].tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert cases["outside"].tolist() == pytest.approx([0.1, (0.3 + 0.2) / 3, 0.1])
    assert cases["other_images"].tolist() == [0, 0, 1]  # a's point is in a box of b


def test_groups_by_hand():
    found = localise(TWO, each(in_corner), num_resamples=50)
    assert list(found.per_class) == ["Mass", "Nodule"]
    overall, nodule = found.overall, found.per_class["Nodule"]
    assert (overall.num_boxes, overall.num_images, overall.num_patients) == (4, 2, 2)
    assert overall.pointing_game.value == pytest.approx(2 / 3)
    assert overall.chance.value == pytest.approx(1 / 3)
    assert overall.gain.value == pytest.approx(1 / 3)
    assert overall.gain_over_other_images.value == pytest.approx(1 / 3)
    assert overall.error_difference.value == pytest.approx((0.2 - 0.2 / 3 + 0.1) / 3)
    assert overall.gain.interval == pytest.approx((0.25, 0.5))  # a twice, or b twice
    assert (nodule.pointing_game.value, nodule.pointing_game.interval) == (0, None)  # one patient
    assert nodule.warning.startswith("1 patient: fewer than 10")


def test_a_patient_is_drawn_with_all_its_images():
    boxes = make_boxes(*((f"{n}", str(n // 6), "Mass", 0, 0, 0.5, 0.5) for n in range(60)))

    def error(image):  # all images of a patient hit, or none does
        return in_corner("a" if int(image) // 6 % 2 else "b")

    low, high = localise(boxes, each(error), num_resamples=400).overall.pointing_game.interval
    assert (low, high) == pytest.approx((0.2, 0.8), abs=0.11)  # 10 patients, not 60 images
    spread = boxes.assign(patient_id=boxes["image"])
    low, high = localise(spread, each(error), num_resamples=400).overall.pointing_game.interval
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

    def error_map(image):
        row = boxes.set_index("image").loc[image]
        error = np.zeros((512, 512), np.float32)
        left, top, right, bottom = (round(512 * row[side]) for side in boxes.columns[3:])
        error[top:bottom, left:right] = 0.2
        return error

    found = localise(boxes, each(error_map), num_resamples=100).overall
    assert found.pointing_game.value == 1
    assert found.gain.interval[0] > 0.8
    assert found.error_inside.value > 0.19
    assert found.error_outside.value < 0.01
    assert found.warning is None


def test_noise_is_found_at_the_rate_of_chance():
    rng = np.random.default_rng(1)
    boxes = random_boxes(rng, 250)
    found = localise(
        boxes, each(lambda _: rng.random((128, 128), dtype=np.float32)), num_resamples=200
    ).overall
    for gain in (found.gain, found.gain_over_other_images, found.error_difference):
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
    found = localise(boxes, each(lambda _: error), num_resamples=200).overall
    assert found.gain.interval[0] > 0.5
    assert found.gain_over_other_images.value == pytest.approx(0)


def test_a_box_without_a_pixel_is_left_out_and_nothing_at_all_is_undefined():
    gone = make_boxes(("a", "7", "Mass", 0.3, 0.3, 0.3, 0.3))
    for boxes in (gone, gone[:0]):
        found = localise(boxes, each(in_corner), num_resamples=3)
        assert found.per_class == {}
        assert found.overall.num_boxes == 0
        assert found.overall.pointing_game.reason == "no image with a box"
        assert found.overall.warning is None


def test_of_many_images_some_are_drawn_and_a_few_are_read_at_a_time(monkeypatch):
    monkeypatch.setattr(localisation, "MAX_IMAGES", 5)
    monkeypatch.setattr(localisation, "BATCH", 2)
    boxes, read = random_boxes(np.random.default_rng(3), 20), []

    def errors(images):
        read.append(images)
        return each(in_corner)(images)

    assert localise(boxes, errors, num_resamples=2).overall.num_images == 5
    assert [len(images) for images in read] == [2, 2, 1]
    first, read[:] = list(read), []
    localise(boxes, errors, num_resamples=2)
    assert read == first
    assert len({image for images in read for image in images}) == 5


def table(x, y, width, height, file_width, file_height):
    """A box in pixels of its file, as the list of boxes has it: on the grid of NIH's own files."""
    x, width = x * 1024 / file_width, width * 1024 / file_width
    y, height = y * 1024 / file_height, height * 1024 / file_height
    names = ["x", "y", "width", "height", "file_width", "file_height"]
    values = [[x, y, width, height, file_width, file_height]]
    return pd.DataFrame(values, columns=names, dtype=np.float32)


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
def test_a_square_file_keeps_its_boxes(fit):
    placed = boxes_on_square(table(256, 512, 128, 256, 1024, 1024), fit)
    assert placed.tolist() == [[0.25, 0.5, 0.375, 0.75]]


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
@pytest.mark.parametrize("side", [224, 512, 1024, 2048])
def test_a_copy_of_another_size_has_its_boxes_at_the_same_place(side, fit):
    listed = pd.DataFrame([{"x": 256, "y": 512, "width": 128, "height": 256}], dtype=np.float32)
    placed = boxes_on_square(listed.assign(file_width=side, file_height=side), fit)
    assert placed.tolist() == [[0.25, 0.5, 0.375, 0.75]]


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("crop", [0.5, 0.25, 1.0, 0.75]),  # columns 100 to 300 are kept
        ("pad", [0.5, 0.375, 0.75, 0.625]),  # 100 rows are added above and below
        ("resize", [0.5, 0.25, 0.75, 0.75]),
    ],
)
def test_a_wide_file_by_hand(fit, expected):
    assert boxes_on_square(table(200, 50, 100, 100, 400, 200), fit).tolist() == [expected]


def test_what_a_crop_cuts_off_has_no_area():
    left, _, right, _ = boxes_on_square(table(0, 50, 90, 100, 400, 200), "crop")[0]
    assert left == right == 0


@pytest.mark.parametrize("fit", ["crop", "pad", "resize"])
@pytest.mark.parametrize("shape", [(150, 230), (230, 150), (190, 190)])
def test_the_box_is_where_the_decoder_puts_its_pixels(fit, shape):
    width, height = shape
    pixels = np.zeros((height, width), np.uint8)
    pixels[70:110, 60:120] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    bright = decode_image(buffer.getvalue(), ImagesConfig(size=128, fit=fit)).pixels > 127
    mask = mask_of(boxes_on_square(table(60, 70, 60, 40, width, height), fit), 128)
    assert mask.any()
    assert (mask & bright).sum() / (mask | bright).sum() > 0.93


def test_a_mask_holds_the_pixels_whose_centres_are_inside():
    mask = mask_of(np.array([[0.25, 0.0, 0.75, 0.5], [0.9, 0.9, 1.0, 1.0]]), 4)
    assert mask.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    centres = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1) + 0.5) / 4
    inside = are_inside(centres.reshape(-1, 2), np.array([[0.25, 0.0, 0.75, 0.5]]))
    assert inside.reshape(4, 4).tolist() == mask.tolist()
