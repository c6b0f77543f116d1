"""What the map of latents is coloured by."""

import pandas as pd
import pytest

from cxrmodel.config import ReportConfig
from cxrmodel.report.figures.gallery import Gallery
from cxrmodel.report.figures.registry import draw_map, map_of


@pytest.fixture
def caption(run, tmp_path):
    """Return a function from what is not known to the caption of the map."""

    def draw(*unknown):
        columns = {name: pd.Series(None, run.images.index, dtype="object") for name in unknown}
        changed = type(run)(**{**vars(run), "images": run.images.assign(**columns)})
        gallery = Gallery(tmp_path)
        config = ReportConfig(tsne_points=60)
        draw_map(map_of(config, changed), config, changed, gallery)
        return gallery.figures[0].caption

    return draw


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        ((), "latents, coloured by whether a finding is listed, by view, by sex and by age; "),
        (("sex", "any_abnormal"), "latents, coloured by view and by age; "),
        (("view", "sex", "age"), "latents, coloured by whether a finding is listed; "),
        (("view", "sex", "age", "any_abnormal"), "latents; "),
    ],
)
def test_the_map_is_coloured_by_what_is_known(caption, unknown, expected):
    words = caption(*unknown)
    assert expected in words
    assert ("AP images" in words) == ("view" not in unknown)
