import numpy as np
import pandas as pd
import pytest

from cxrmodel.data.label_columns import (
    any_abnormal,
    check_label_names,
    known_abnormal,
    label_names,
    label_values,
    learnable,
    say_where_unknown,
)
from cxrmodel.errors import DataError

UNKNOWN = pd.NA


def test_labels_are_the_columns_after_any_abnormal(tmp_path):
    path = tmp_path / "index.parquet"
    table = pd.DataFrame({"image": ["a"], "any_abnormal": [1], "B b": [1], "A": [0]})
    table.to_parquet(path)
    assert label_names(path) == ("B b", "A")
    table[["image", "any_abnormal"]].to_parquet(path)
    assert label_names(path) == ()


def test_an_unknown_label_is_not_a_number():
    table = pd.DataFrame({"A": [1, 0, UNKNOWN], "B": [UNKNOWN, 1, 1]}, dtype="Int8")
    np.testing.assert_array_equal(
        label_values(table, ["B", "A"]), [[np.nan, 1], [1, 0], [1, np.nan]]
    )
    assert label_values(table, []).shape == (3, 0)


def test_an_image_is_abnormal_unless_its_labels_are_known_to_be_0():
    labels = pd.DataFrame(
        {"A": [1, 0, UNKNOWN, 0, 1], "B": [0, 0, UNKNOWN, UNKNOWN, UNKNOWN]}, dtype="Int8"
    )
    found = any_abnormal(labels)
    assert found.name == "any_abnormal"
    assert found.dtype == "Int8"
    assert found.astype(object).tolist() == [1, 0, UNKNOWN, UNKNOWN, 1]
    assert any_abnormal(labels[[]]).isna().all()  # nothing is labelled, so nothing is known


def test_a_label_can_be_learned_from_both_kinds_of_image():
    nan = np.nan
    labels = np.array([[1, 1, 0, nan, 1], [0, 1, 0, nan, nan], [nan, nan, 0, nan, 0]])
    assert learnable(labels).tolist() == [True, False, False, False, True]
    assert learnable(np.zeros((0, 2))).tolist() == [False, False]


def test_what_is_not_known_is_said_once_and_does_not_count_as_abnormal(caplog):
    table = pd.DataFrame({"any_abnormal": pd.array([1, 0, None], "Int8")})
    assert known_abnormal(table).tolist() == [True, False, False]
    say_where_unknown(table)
    assert [record.message for record in caplog.records] == [
        "Of 1 of 3 images it is not known whether they are abnormal: a split or a draw does not "
        "balance these"
    ]
    caplog.clear()
    say_where_unknown(table.head(2))
    assert not caplog.records


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("A", "B", "A"), "Two labels are called 'A'"),
        (("A", "split"), "A label cannot be called 'split'"),
        ((" ",), "A label cannot be called ' '"),
        (("a\nb",), r"A label cannot be called 'a\\nb'"),
        (("x" * 81,), "has 81 characters, 'x+'..., and may have 80"),
    ],
)
def test_a_name_that_cannot_be_a_column_beside_others_is_refused(names, message):
    with pytest.raises(DataError, match=message):
        check_label_names(names)
    check_label_names(("A", "Pleural Effusion", "ä/b"))
