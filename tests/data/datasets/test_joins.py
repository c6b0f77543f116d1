import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrmodel.data.datasets.data_set import Entries
from cxrmodel.data.datasets.joins import image_names, join_rows, ledger_of, named_files
from cxrmodel.data.ledger import Reason

COMPOSED, DECOMPOSED = "h\u00e9.png", "he\u0301.png"


def listing_of(*uris):
    return pd.DataFrame({"uri": list(uris), "bytes": 1, "version": "1"}).astype({"uri": "str"})


def entries_of(*names, patient="1", view="PA", reason=""):
    rows = pd.DataFrame({"image": list(names), "patient_id": patient, "view": view})
    rows = rows.astype("str")
    empty = pd.Series(reason, index=rows.index, dtype="str")
    return Entries(rows, (), empty, empty)


def joined(entries, *uris, parts=1):
    files, surplus = named_files(listing_of(*uris), parts)
    rows = join_rows(entries, files, parts)
    return rows, ledger_of(rows, files, surplus)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        ".",
        "",
        "/etc/passwd",
        "images/a.png",
        "..\\a.png",
        "C:\\a.png",
        "a\x00.png",
        "a.png\x00",
        "a\n.png",
        "a\r.png",
        "a\x1b[31m.png",
        "a\x85.png",
        "a\ufffd.png",
        "x" * 4096 + ".png",
        "../" * 1365 + "a.png",
    ],
)
def test_a_name_that_no_file_can_have_is_in_the_ledger_and_shown_in_print(name):
    rows, excluded = joined(entries_of(name, "a.png"), "images/a.png", "etc/passwd.png")
    assert rows["reason"].tolist() == ["bad_image_name", ""]
    shown = excluded["image"][0]
    assert shown.isprintable()
    assert shown in (name[:200], name[:200].encode("unicode_escape").decode())


@settings(max_examples=30)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_whatever_a_table_says_only_listed_files_are_named(names):
    uris = ("images/a.png", "images/b.png")
    rows, excluded = joined(entries_of(*names, "a.png"), *uris)
    used = rows[rows["reason"] == ""]
    assert {"images/a.png"} <= set(used["uri"]) <= set(uris)
    assert set(excluded["reason"]) <= {str(reason) for reason in Reason}
    assert len(excluded) + len(used) == len(rows) + len(uris) - len(used)
    assert excluded["image"].map(str.isprintable).all()


@pytest.mark.parametrize(("row", "file"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_an_accent_spelled_in_two_ways_is_one_name(row, file):
    rows, excluded = joined(entries_of(row), f"images/{file}")
    assert rows[["image", "uri", "reason"]].iloc[0].tolist() == [COMPOSED, f"images/{file}", ""]
    assert excluded.empty


def test_two_files_of_one_name_in_two_spellings_are_a_duplicate_that_can_be_told_apart():
    rows, excluded = joined(entries_of(COMPOSED, DECOMPOSED), DECOMPOSED, COMPOSED)
    assert rows["uri"].tolist() == [DECOMPOSED, DECOMPOSED]
    assert excluded["reason"].tolist() == ["duplicate_row", "duplicate_file"]
    assert excluded["detail"][1] == ascii(f"{COMPOSED} beside {DECOMPOSED}")


@pytest.mark.parametrize("twin", ["\u0430.png", "\uff41.png", "A.png", "a.png ", "a\u200b.png"])
def test_a_name_that_only_looks_the_same_is_another_name(twin):
    rows, excluded = joined(entries_of("a.png"), f"images/{twin}")
    assert rows["reason"].tolist() == ["image_missing"]
    assert excluded["reason"].tolist() == ["image_missing", "row_missing"]


def test_two_dots_within_a_name_are_part_of_it():
    rows, excluded = joined(entries_of("a..0.png"), "images/a..0.png")
    assert rows["reason"].tolist() == [""]
    assert excluded.empty


def test_an_archive_of_windows_may_have_backslashes_between_the_parts():
    rows, excluded = joined(entries_of("a.png"), "images\\a.png")
    assert rows["uri"].tolist() == ["images\\a.png"]
    assert excluded.empty


@pytest.mark.parametrize("hidden", [".Trash-0/files/a.png", "images/.ipynb_checkpoints/a.png"])
def test_a_copy_in_a_hidden_folder_is_not_used_for_the_file_itself(hidden):
    rows, excluded = joined(entries_of("a.png"), hidden, "images/a.png")
    assert rows["uri"].tolist() == ["images/a.png"]
    assert excluded["detail"].tolist() == [f"{hidden} beside images/a.png"]


@given(st.text(st.characters(exclude_characters="/\\", exclude_categories=["Cs"]), min_size=1))
def test_a_files_name_is_the_last_part_of_its_path_composed(name):
    uris = listing_of(f"a/b/{name}")["uri"]
    assert image_names(uris, 1).tolist() == [unicodedata.normalize("NFC", name)]
    assert image_names(uris, 3).tolist() == [unicodedata.normalize("NFC", f"a/b/{name}")]


def test_the_first_reason_that_applies_is_the_one_recorded():
    entries = entries_of(
        "a.png", "a.png", "b.png", patient="", view="lateral", reason="empty_labels"
    )
    rows, _ = joined(entries, "a.png")
    assert rows["reason"].tolist() == ["bad_patient_id", "duplicate_row", "image_missing"]
    assert rows["detail"].tolist() == ["", "row 2 of the table", ""]
    entries = entries_of("a.png", view="lateral", reason="empty_labels")
    assert joined(entries, "a.png")[0]["reason"].tolist() == ["lateral_view"]


def test_a_dicom_file_may_say_later_who_it_is_of():
    rows, _ = joined(entries_of("a.DCM", "b.png", patient=""), "a.DCM", "b.png")
    assert rows["reason"].tolist() == ["", "bad_patient_id"]


def test_a_long_label_is_cut_in_the_ledger():
    entries = entries_of("a.png", reason=str(Reason.UNKNOWN_LABEL))
    entries = Entries(entries.rows, (), entries.reasons, pd.Series(["\u202e" + "x" * 4096]))
    _, excluded = joined(entries, "a.png")
    assert excluded["detail"].tolist() == ["\\u202e" + "x" * 199]
