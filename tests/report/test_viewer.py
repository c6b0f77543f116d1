import base64
import io

import numpy as np
import pytest
from PIL import Image

from cxrmodel.report.figures.reconstructions import Chosen, compare_image, join_examples
from cxrmodel.report.viewer import (
    ErrorScale,
    grey,
    make_films,
    outline,
    read_films,
    write_films,
)

CYAN = (0, 229, 255)


def ramp(size=64):
    return np.linspace(0, 1, size * size, dtype=np.float32).reshape(size, size)


def pixels(url):
    head, data = url.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_a_film_has_three_views_and_its_error_the_colours_of_the_scale():
    example = compare_image(Chosen("a.png", "Mass"), ramp(), np.zeros((64, 64), np.float32))
    (film,) = make_films(example, ErrorScale(0.5), max_view_bytes=100_000)
    assert film.lines == ["Mass", "a", "L1 0.5000"]
    assert [view.label for view in film.views] == ["Original", "Reconstruction", "Error"]
    original, decoded, error = (pixels(view.url) for view in film.views)
    assert original[-1, -1].min() > 250
    assert decoded.max() < 5
    assert error[0].max() < 30  # no error is black
    assert error[-1].min(axis=0).tolist() == pytest.approx([252, 253, 191], abs=15)  # magma's end
    assert error[40] == pytest.approx(error[-1], abs=15)  # beyond the scale


def test_views_are_shrunk_to_the_bytes_they_may_have():
    noise = np.random.default_rng(0).random((256, 256), dtype=np.float32)
    example = compare_image(Chosen("a.png"), noise, noise / 2)
    (film,) = make_films(example, ErrorScale(0.5), max_view_bytes=8_000)
    for view in film.views:
        assert len(view.url) < 8_000 * 4 / 3 + 30
        assert pixels(view.url).shape[0] < 256


def test_what_is_written_is_read_again_once_an_image(tmp_path):
    films = [
        compare_image(Chosen(name, "why"), ramp(), ramp() * np.float32(factor))
        for name, factor in (("a.png", 0.9), ("b.png", 0.5))
    ]
    path = tmp_path / "films.parquet"
    write_films([join_examples(films), films[0]], ErrorScale(0.25), path)
    found = read_films(path.read_bytes())
    assert [chosen.image for chosen in found.chosen] == ["a.png", "b.png"]
    assert found.l1 == pytest.approx([0.05, 0.25])
    assert found.originals[1] == pytest.approx(ramp(), abs=0.02)
    assert found.reconstructions[0] == pytest.approx(0.9 * ramp(), abs=0.02)
    assert found.errors[1] == pytest.approx(np.minimum(ramp() / 2, 0.25), abs=0.01)


def test_a_box_is_drawn_where_it_lies_and_nowhere_else():
    film = grey(np.zeros((101, 101), dtype=np.float32))
    drawn = np.asarray(outline(film, np.array([[0.1, 0.2, 0.5, 0.6]])))
    for row, column in ((20, 10), (20, 50), (60, 10), (60, 50), (40, 10)):
        assert tuple(drawn[row, column]) == CYAN
    assert not drawn[30:50, 20:40].any()
    assert not drawn[62:].any()
    assert outline(film, np.zeros((0, 4))) is film
