"""What holds for the tables of every data set, however they are written and whatever they say."""

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.joins import join_rows, ledger_of, named_files, table_names
from cxrmodel.data.datasets.name_rules import match_names
from cxrmodel.data.datasets.registry import AUTO, DATASETS, data_set_of, read_tables
from cxrmodel.data.ledger import Reason

CELLS = st.text("ab01-|;,'\"[]/\\é\x01 \tx", max_size=8)
SETS = pytest.mark.parametrize("data_set", DATASETS.values(), ids=DATASETS)


def written(columns, rows, separator=",", line_end="\n", encoding="utf-8"):
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([[names[0] for names in columns.values()], *rows])
    return stream.getvalue().encode(encoding)


def read(data_set, main, *joined):
    contents = [main, *joined]
    names = [f"{number}.csv" for number in range(len(contents))]
    return read_tables(DataConfig(dataset=data_set.name), contents, names, only_dicom=False)


def joined_tables(data_set, image="a.png"):
    tables = []
    for table in data_set.joined:
        cells = [image if field == "image" else "1" for field in table.columns]
        tables.append(written(table.columns, [cells]))
    return tables


@SETS
@pytest.mark.parametrize(
    ("separator", "line_end", "encoding"),
    [(";", "\r\n", "utf-8-sig"), ("\t", "\r", "utf-16"), (",", "\r\n", "utf-16")],
)
def test_every_dialect_says_the_same(data_set, separator, line_end, encoding):
    rows = [["a.png" if field == "image" else "1" for field in data_set.columns]]
    plain = read(data_set, written(data_set.columns, rows), *joined_tables(data_set))
    other = read(
        data_set,
        written(data_set.columns, rows, separator, line_end, encoding),
        *joined_tables(data_set),
    )
    assert other[0] is plain[0] is data_set
    pd.testing.assert_frame_equal(other[1].rows, plain[1].rows)


@SETS
@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_cells_give_an_image_or_a_reason(data_set, data):
    width = len(data_set.columns)
    rows = data.draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=4))
    image_set, entries = read(data_set, written(data_set.columns, rows), *joined_tables(data_set))
    table = entries.rows
    assert len(table) <= len(rows)
    assert list(table.columns) == [
        "image", "patient_id", "age", "sex", "view", "follow_up", "official", "any_abnormal",
        *entries.labels,
    ]  # fmt: skip
    assert {str(table[each].dtype) for each in ("any_abnormal", *entries.labels)} == {"Int8"}
    assert str(table["age"].dtype) == "Int16"
    assert set(entries.reasons) <= {"", *map(str, Reason)}
    listing = pd.DataFrame({"uri": ["x/a.png"], "bytes": [1], "version": ["1"]})
    files, surplus = named_files(listing, image_set.name_parts)
    match = match_names(table_names(entries).unique(), files["image"], image_set.name_parts)
    joined = join_rows(entries, files, image_set.name_parts, match)
    assert joined["reason"].isin(["", *map(str, Reason)]).all()
    assert len(ledger_of(joined, files, surplus)) + (joined["reason"] == "").sum() >= len(table)


@SETS
def test_its_own_columns_tell_it_from_all_others(data_set):
    assert data_set_of(AUTO, written(data_set.columns, []), only_dicom=False) is data_set


@SETS
def test_what_a_report_says_of_it_is_there(data_set):
    assert data_set.url.startswith("https://")
    assert data_set.citation
    assert data_set.title
    assert set(data_set.required) <= set(data_set.columns)
    assert set(data_set.images_of) <= set(DATASETS)
