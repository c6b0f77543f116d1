import re
from pathlib import Path

import pandas as pd

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.files.listing import IMAGE_SUFFIXES
from cxrmodel.data.index import INDEX_COLUMNS
from cxrmodel.data.ledger import (
    ASKED_FOR,
    Reason,
    count_reasons,
    describe_counts,
    ledger,
    losses,
)

DOCS = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")


def rows_of(title):
    """Return the cells of the last table of a section of the documentation."""
    section = DOCS.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def test_the_documented_vocabulary_is_the_whole_one():
    documented = {reason.strip("`"): meaning for reason, meaning in rows_of("The ledger")}
    assert documented == {reason.value: reason.meaning for reason in Reason}


def test_the_documented_index_is_the_one_written():
    columns = re.findall(r"`(\w+)`", rows_of("What the index holds")[0][1])
    values = {"F", "M", "AP", "PA", "lateral", "train", "val", "train_val", "test"}
    assert [name for name in columns if name not in values] == [
        name for name in INDEX_COLUMNS if name not in PATHOLOGIES
    ]


def test_every_setting_of_a_data_set_is_documented():
    described_elsewhere = {"fraction", "seed", "phantom_images"}
    for name in set(DataConfig.model_fields) - described_elsewhere:
        assert f"`data.{name}" in DOCS, name
    assert all(f"`{suffix}`" in DOCS for suffix in IMAGE_SUFFIXES)


def test_every_reason_is_a_sentence_and_is_found_by_its_value():
    assert all(re.fullmatch(r"[A-Z].*\.", reason.meaning) for reason in Reason)
    assert Reason("too_large") is Reason.TOO_LARGE


def test_counts_are_most_frequent_first():
    rows = ledger(list("abc"), ["too_large", "unreadable", "unreadable"], [""] * 3)
    assert list(count_reasons(rows).items()) == [("unreadable", 2), ("too_large", 1)]
    assert describe_counts(rows) == "unreadable 2, too_large 1"
    assert describe_counts(rows[:0]) == "nothing excluded"


def test_what_costs_more_than_one_per_cent_is_said_with_an_example_and_what_to_do():
    rows = ledger(
        ["a.png", "b.png", "c.png", "", *"def"],
        [
            "unknown_label",
            "unknown_label",
            "bad_patient_id",
            "not_sampled",
            *["uncertain_label"] * 3,
        ],
        ["Cold", "", "", "", *[""] * 3],
    )
    found = losses(rows, 93)
    assert found == [
        "2 of 100 entries (2.0 %) are left out as unknown_label, for example a.png (Cold). Its row "
        "has a label that the data set does not define. Spell the labels as the data set does: "
        "NIH's are names joined by `|`, CheXpert's are 1, 0, -1 or blank."
    ]
    assert losses(rows[2:3], 98)[0].startswith("1 of 99 entries (1.0 %) is left out as bad_patient")


def test_every_reason_but_those_asked_for_has_a_remedy():
    assert {reason for reason in Reason if not reason.remedy} == ASKED_FOR
    assert all(re.fullmatch(r"[A-Z].*\.", reason.remedy) for reason in set(Reason) - ASKED_FOR)


def test_a_ledger_is_text_even_without_rows():
    rows = ledger([], Reason.ROW_MISSING, [])
    assert list(rows.columns) == ["image", "reason", "detail"]
    assert all(isinstance(kind, pd.StringDtype) for kind in rows.dtypes)
