import base64
import io

import numpy as np
import pytest
from PIL import Image

from cxrmodel.report.figures.reconstructions import Selection, make_example
from cxrmodel.report.viewer import (
    ErrorScale,
    grey,
    make_strips,
    outline,
    read_examples,
    view_example,
    write_examples,
)

CYAN = (0, 229, 255)


def ramp(size=64):
    return np.linspace(0, 1, size * size, dtype=np.float32).reshape(size, size)


def pixels(url):
    head, data = url.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def test_an_image_has_three_views_and_its_error_the_colours_of_the_scale():
    example = make_example(Selection("a.png", 0.5, "Mass"), ramp(), np.zeros((64, 64), np.float32))
    shown = view_example(example, ErrorScale(0.5), max_view_bytes=100_000)
    assert shown.lines == ["Mass", "a", "L1 0.5000"]
    assert [view.label for view in shown.views] == ["Original", "Reconstruction", "Error"]
    original, decoded, error = (pixels(view.url) for view in shown.views)
    assert original[-1, -1].min() > 250
    assert decoded.max() < 5
    assert error[0].max() < 30  # no error is black
    assert error[-1].min(axis=0).tolist() == pytest.approx([252, 253, 191], abs=15)  # magma's end
    assert error[40] == pytest.approx(error[-1], abs=15)  # beyond the scale


def test_views_are_shrunk_to_the_bytes_they_may_have():
    noise = np.random.default_rng(0).random((256, 256), dtype=np.float32)
    example = make_example(Selection("a.png", 0.25), noise, noise / 2)
    for view in view_example(example, ErrorScale(0.5), max_view_bytes=8_000).views:
        assert len(view.url) < 8_000 * 4 / 3 + 30
        assert pixels(view.url).shape[0] < 256


def test_what_is_written_is_read_again_once_an_image(tmp_path):
    examples = [
        make_example(Selection(name, l1, "why"), ramp(), ramp() * np.float32(1 - 2 * l1))
        for name, l1 in (("a.png", 0.05), ("b.png", 0.25))
    ]
    path = tmp_path / "viewer.parquet"
    write_examples([examples, examples[:1]], 0.25, path)
    first, second = read_examples(path.read_bytes())
    assert [one.selection.image for one in (first, second)] == ["a.png", "b.png"]
    assert [one.selection.l1 for one in (first, second)] == [0.05, 0.25]
    assert second.original == pytest.approx(ramp(), abs=0.02)
    assert first.reconstruction == pytest.approx(0.9 * ramp(), abs=0.02)
    assert second.error == pytest.approx(np.minimum(ramp() / 2, 0.25), abs=0.01)


def test_strips_share_one_error_scale_and_without_an_image_there_is_none():
    examples = [
        make_example(Selection("a.png", l1), ramp(), ramp() * np.float32(1 - l1))
        for l1 in (0.1, 0.8)
    ]
    strips = make_strips({"one": examples[:1], "two": examples[1:]})
    assert list(strips.images) == ["one", "two"]
    assert strips.scale == ErrorScale(0.8)
    assert make_strips({}).scale is None


def test_a_box_is_drawn_where_it_lies_and_nowhere_else():
    image = grey(np.zeros((101, 101), dtype=np.float32))
    drawn = np.asarray(outline(image, np.array([[0.1, 0.2, 0.5, 0.6]])))
    for row, column in ((20, 10), (20, 50), (60, 10), (60, 50), (40, 10)):
        assert tuple(drawn[row, column]) == CYAN
    assert not drawn[30:50, 20:40].any()
    assert not drawn[62:].any()
    assert outline(image, np.zeros((0, 4))) is image
