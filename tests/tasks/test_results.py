"""What the UI of Prefect is given to show, beyond what a run of the flow tests."""

import pandas as pd

from cxrmodel.data.ledger import Reason, ledger
from tasks.results import ledger_table


def test_the_ledger_is_a_row_a_reason_with_its_meaning_and_three_examples():
    missing = ledger([f"{n}.png" for n in range(5)], Reason.IMAGE_MISSING, [""] * 5)
    damaged = ledger(["bad.png"], Reason.DAMAGED_IMAGE, ["cut short"])
    first, second = ledger_table(pd.concat([damaged, missing]))
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


def test_a_ledger_without_rows_says_so():
    (row,) = ledger_table(ledger([], Reason.IMAGE_MISSING, []))
    assert row == {"reason": "none", "meaning": "No image is left out.", "images": 0}
