"""A run in brief, beyond what a run of the flow tests."""

import pytest

from cxrmodel.data.ledger import Reason, ledger
from cxrmodel.report.brief import ledger_rows
from cxrmodel.storage.layout import EXCLUDED_FILE


@pytest.fixture
def folder_of(tmp_path):
    """Return the folder of a stage that left these images out."""

    def make(name, *arguments):
        (tmp_path / name).mkdir()
        ledger(*arguments).to_parquet(tmp_path / name / EXCLUDED_FILE)
        return tmp_path / name

    return make


def test_the_ledger_has_a_row_per_reason_with_its_meaning_and_three_examples(folder_of):
    images = [f"{number}.png" for number in range(5)]
    damaged = folder_of("images", ["bad.png"], Reason.DAMAGED_IMAGE, ["cut short"])
    missing = folder_of("index", images, Reason.IMAGE_MISSING, [""] * 5)
    first, second = ledger_rows([damaged, missing])
    assert first == {
        "reason": "image_missing",
        "meaning": "The CSV has a row for it, and no such file is there.",
        "images": 5,
        "examples": "0.png, 1.png, 2.png",
    }
    assert (second["reason"], second["images"], second["examples"]) == (
        "damaged_image",
        1,
        "bad.png",
    )


def test_a_ledger_without_rows_says_so(folder_of):
    (row,) = ledger_rows([folder_of("index", [], Reason.IMAGE_MISSING, [])])
    assert row == {"reason": "none", "meaning": "No image is left out.", "images": 0}
