import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.config import ImagesConfig
from cxrmodel.data.images.decode import decode_image
from cxrmodel.evaluation.audit.boxes import are_inside, boxes_on_square, mask_of


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
    film = np.zeros((height, width), np.uint8)
    film[70:110, 60:120] = 255
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "PNG")
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
