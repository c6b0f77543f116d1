import io
import struct

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from cxrmodel.report.figures.latent_space import draw_kl_per_dimension
from cxrmodel.report.figures.theme import DARK, LIGHT, contrast, drawing, png, rasterize


def chunks(data):
    place, found = 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append(data[place + 4 : place + 8])
        place += 12 + length
    return found


def test_png_holds_no_text_or_time_and_themes_differ():
    kl = np.ones(4)
    pngs = {}
    for theme in (LIGHT, DARK):
        with drawing(theme):
            pngs[theme.name] = png(rasterize(draw_kl_per_dimension(kl, kl / 2, theme)))
        assert not {b"tEXt", b"iTXt", b"zTXt", b"tIME"} & set(chunks(pngs[theme.name]))
    corner = {n: Image.open(io.BytesIO(d)).convert("RGB").getpixel((1, 1)) for n, d in pngs.items()}
    assert corner == {"light": (255, 255, 255), "dark": (20, 24, 29)}


def test_drawing_leaves_a_users_settings_as_they_were():
    mpl.get_backend()  # chosen on first use
    before = mpl.rcParams.copy()
    with drawing(DARK):
        rasterize(draw_kl_per_dimension(np.ones(3), np.ones(3), DARK))
    assert mpl.rcParams == before


def test_contrast_is_that_of_the_guidelines():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_colours_can_be_read(theme):
    assert contrast(theme.ink, theme.paper) > 7
    assert contrast(theme.muted, theme.paper) > 4.5
    for series in (theme.first, theme.second, theme.third):
        assert contrast(series, theme.paper) > 3
