"""What a planned stage waits for, beyond what a dry run of the flow tests."""

import pytest

from cxrmodel.config import ImagesConfig, SplitConfig
from cxrmodel.storage.store import Artifact
from tasks.engine.pixels import PixelSource
from tasks.engine.preview import Unknown, missing_input

KNOWN = Artifact(stage="index", key="k", files={})


def pixels(index, images) -> PixelSource:
    return PixelSource("/data", ImagesConfig(), index, images)


@pytest.mark.parametrize(
    ("inputs", "missing"),
    [
        ({"config": SplitConfig(), "index": KNOWN}, None),
        ({"config": SplitConfig(), "index": Unknown("index")}, "index"),
        ({"index": Unknown("index").only("index.parquet")}, "index"),
        ({"pixels": pixels(KNOWN, KNOWN)}, None),
        ({"pixels": pixels(KNOWN, Unknown("images"))}, "images"),
        ({"pixels": pixels(Unknown("source"), KNOWN)}, "source"),
        ({"stages": {"index": KNOWN, "vae": Unknown("vae")}}, "vae"),
    ],
)
def test_an_input_that_is_not_there_yet_is_found_wherever_it_is(inputs, missing):
    assert missing_input(inputs) == missing
