import base64
import io
from functools import partial

import numpy as np
from PIL import Image

from cxrmodel.report.figures.gallery import MAX_JPEG_BYTES, Gallery
from cxrmodel.report.figures.latent_space import draw_kl_per_dimension
from cxrmodel.report.figures.theme import new_figure


def added(directory, draw, **options):
    """What the page has of a figure that is added to a gallery."""
    gallery = Gallery(directory / "figures")
    gallery.add("name", draw, section="training", alt="bars", caption="Bars.", **options)
    return gallery.figures[0]


def decoded(url):
    head, data = url.split(",")
    return head, base64.b64decode(data)


def test_a_drawing_is_inline_as_the_file_that_is_written(tmp_path):
    figure = added(tmp_path, partial(draw_kl_per_dimension, np.ones(4), np.ones(4)))
    head, data = decoded(figure.light)
    assert head == "data:image/png;base64"
    assert data == (tmp_path / "figures" / "name.png").read_bytes()
    width, height = Image.open(io.BytesIO(data)).size
    assert (figure.width_px, figure.height_px) == (width // 2, height // 2) == (1040, 270)
    assert decoded(figure.dark)[1] != data


def test_a_photograph_of_noise_still_fits_the_page(tmp_path):
    noise = np.random.default_rng(0).random((1500, 2080), dtype=np.float32)

    def draw(theme):
        figure = new_figure(7.5)
        figure.figimage(noise, cmap="gray")
        return figure

    shown = added(tmp_path, draw, is_photograph=True)
    head, data = decoded(shown.light)
    assert head == "data:image/jpeg;base64"
    assert len(data) <= MAX_JPEG_BYTES
    assert Image.open(io.BytesIO(data)).width < 2080
    assert shown.width_px == 1040
