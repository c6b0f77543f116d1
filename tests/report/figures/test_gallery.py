import base64
import io

import numpy as np
from PIL import Image

from cxrmodel.report.figures.gallery import MAX_JPEG_BYTES, make_picture
from cxrmodel.report.figures.latent_space import draw_kl_per_dimension
from cxrmodel.report.figures.theme import new_figure


def decoded(url):
    head, data = url.split(",")
    return head, base64.b64decode(data)


def test_a_drawing_is_inline_as_the_file_that_is_written(tmp_path):
    picture = make_picture(
        "kl", "bars", lambda theme: draw_kl_per_dimension(np.ones(4), np.ones(4), theme), tmp_path
    )
    head, data = decoded(picture.light)
    assert head == "data:image/png;base64"
    assert data == (tmp_path / "kl.png").read_bytes()
    width, height = Image.open(io.BytesIO(data)).size
    assert (picture.width_px, picture.height_px) == (width // 2, height // 2) == (1040, 270)
    assert decoded(picture.dark)[1] != data


def test_a_photograph_of_noise_still_fits_the_page(tmp_path):
    noise = np.random.default_rng(0).random((1500, 2080), dtype=np.float32)

    def draw(theme):
        figure = new_figure(7.5)
        figure.figimage(noise, cmap="gray")
        return figure

    picture = make_picture("noise", "noise", draw, tmp_path, is_photograph=True)
    head, data = decoded(picture.light)
    assert head == "data:image/jpeg;base64"
    assert len(data) <= MAX_JPEG_BYTES
    assert Image.open(io.BytesIO(data)).width < 2080
    assert picture.width_px == 1040
