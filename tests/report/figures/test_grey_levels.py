"""Grey levels per data set."""

import numpy as np
import pandas as pd
import pytest

from cxrmodel.report.figures.grey_levels import MAX_READ, count_grey_levels, draw_grey_levels
from cxrmodel.report.figures.theme import THEMES, drawing


class Flat:
    """Images of one grey level each, the number of the image."""

    def __init__(self):
        self.read_rows = []

    def rows_of(self, images):
        return np.array([int(image) for image in images])

    def read(self, rows):
        self.read_rows += rows.tolist()
        return np.broadcast_to(rows.astype(np.uint8)[:, None, None], (len(rows), 2, 2))


def test_shares_of_a_data_set_are_of_its_own_images():
    images = pd.DataFrame({"image": ["3", "9", "9", "200"], "source": ["a", "a", "a", "b"]})
    shares = count_grey_levels(images, Flat(), seed=0)
    assert list(shares) == ["a", "b"]
    assert shares["a"][[3, 9]] == pytest.approx([1 / 3, 2 / 3])
    assert shares["b"][200] == 1


def test_of_a_large_data_set_few_images_are_read():
    pixels = Flat()
    count_grey_levels(
        pd.DataFrame({"image": [str(n) for n in range(250)], "source": "a"}), pixels, seed=0
    )
    assert len(set(pixels.read_rows)) == MAX_READ


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_a_line_per_data_set_and_a_legend_where_there_are_several(theme):
    flat = np.full(256, 1 / 256)
    with drawing(theme):
        one = draw_grey_levels({"nih": flat}, theme).axes[0]
        many = draw_grey_levels({f"table {n}": flat for n in range(6)}, theme).axes[0]
    assert one.get_legend() is None
    assert len(many.patches) == len(many.get_legend().get_texts()) == 6
    looks = {(line.get_edgecolor(), line.get_linestyle()) for line in many.patches}
    assert len(looks) == 6
    heights, _, _ = one.patches[0].get_data()
    assert heights == pytest.approx([400 / 256] * 64)
