"""Data sets that are damaged, tiny or built to deceive, through the whole index stage."""

import gzip
import os
import unicodedata

import pandas as pd
import pytest

from cxrmodel.errors import DataError


def tables(folder):
    return tuple(pd.read_parquet(folder / f"{name}.parquet") for name in ("index", "excluded"))


def reasons(ledger):
    return list(ledger[["image", "reason"]].itertuples(index=False, name=None))


@pytest.fixture
def root(tmp_path, png):
    """Return a folder with one image and no table yet."""
    path = tmp_path / "data" / "images" / "a.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(png(1))
    return tmp_path / "data"


@pytest.mark.parametrize("text", ["", "\n"], ids=["no line end", "a line end"])
def test_a_table_without_rows_says_so(text, root, index_of):
    (root / "Data_Entry.csv").write_text("Image Index,Finding Labels,Patient ID" + text)
    message = r"Nothing of .*data is usable: 0 rows in the table, 1 image files; row_missing 1\."
    with pytest.raises(DataError, match=message):
        index_of(root)


def test_an_empty_table_is_named(root, index_of):
    (root / "Data_Entry_2017.csv").touch()
    with pytest.raises(DataError, match=r"data/Data_Entry_2017\.csv is empty\. Copy it again"):
        index_of(root)


def test_one_row_is_an_index_of_one_image(root, write_csv, index_of):
    write_csv(root / "Data_Entry.csv", [("a.png", "Mass", "1")])
    index, ledger = tables(index_of(root))
    assert index[["image", "patient_id", "Mass", "any_abnormal"]].to_numpy().tolist() == [
        ["a.png", "1", 1, 1]
    ]
    assert ledger.empty


def test_a_share_of_one_image_cannot_be_drawn_and_says_so(root, write_csv, index_of):
    write_csv(root / "Data_Entry.csv", [("a.png", "Mass", "1")])
    with pytest.raises(DataError, match=r"data\.fraction = 0\.5 of 1 usable images.*or 1\."):
        index_of(root, fraction=0.5)


def test_a_folder_named_like_an_image_is_none_and_what_it_holds_counts(
    root, png, write_csv, index_of
):
    (root / "images" / "b.png").mkdir()
    (root / "images" / "b.png" / "c.png").write_bytes(png(2))
    (root / "Data_Entry_old.csv").mkdir()
    rows = [("a.png", "Mass", "1"), ("b.png", "Mass", "1"), ("c.png", "Mass", "1")]
    write_csv(root / "Data_Entry.csv", rows)
    index, ledger = tables(index_of(root))
    assert index["uri"].tolist() == ["images/a.png", "images/b.png/c.png"]
    assert reasons(ledger) == [("b.png", "image_missing")]


def test_a_link_that_its_owner_placed_is_followed_out_of_the_root(
    root, png, write_csv, index_of, caplog
):
    caplog.set_level("INFO", "cxrmodel")
    outside = root.parent / "cache"
    outside.mkdir()
    (outside / "0123abc").write_bytes(png(2))
    (outside / "d.png").write_bytes(png(3))
    (root / "images" / "b.png").symlink_to(outside / "0123abc")
    (root / "images" / "c.png").symlink_to(root / "images" / "a.png")
    (root / "folder").symlink_to(outside)
    rows = [(f"{name}.png", "Mass", "1") for name in "abcd"]
    write_csv(root / "Data_Entry.csv", rows)
    index, ledger = tables(index_of(root))
    assert index["uri"].tolist() == [*(f"images/{name}.png" for name in "abc"), "folder/d.png"]
    assert ledger.empty
    assert f"lead out of the folder: 2 in {root} (folder, images/b.png)." in caplog.text


def test_a_name_in_the_table_reaches_no_file_outside_the_root(root, png, write_csv, index_of):
    (root.parent / "secret.png").write_bytes(png(2))
    names = ["../secret.png", str(root.parent / "secret.png"), "images/../../secret.png"]
    write_csv(root / "Data_Entry.csv", [("a.png", "Mass", "1"), *((n, "Mass", "1") for n in names)])
    index, ledger = tables(index_of(root))
    assert index["uri"].tolist() == ["images/a.png"]
    assert reasons(ledger) == [(name, "bad_image_name") for name in names]


def test_a_row_without_patient_and_the_same_image_twice(root, png, write_csv, index_of):
    (root / "images" / "b.png").write_bytes(png(2))
    rows = [("a.png", "Mass", "1"), ("b.png", "Mass", ""), ("a.png", "Hernia", "2")]
    write_csv(root / "Data_Entry.csv", rows)
    index, ledger = tables(index_of(root))
    assert index[["patient_id", "Mass", "Hernia"]].to_numpy().tolist() == [["1", 1, 0]]
    assert reasons(ledger) == [("b.png", "bad_patient_id"), ("a.png", "duplicate_row")]


def test_names_of_another_system_are_found_whatever_their_spelling(root, png, index_of, caplog):
    name = "thorax_été.png"
    path = os.fsencode(unicodedata.normalize("NFD", name))
    (root / "images" / os.fsdecode(path)).write_bytes(png(2))
    text = f"Image Index;Finding Labels;Patient ID;Patient Age\r\n{name};Mass;É-1;411\r\n"
    (root / "Data_Entry.csv.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    index, _ = tables(index_of(root))
    assert index["image"].tolist() == [name]
    assert index["patient_id"].tolist() == ["É-1"]
    assert index["age"].isna().all()
    assert "is not in UTF-8" in caplog.text


def test_bytes_that_are_no_table_say_so(root, png, index_of):
    (root / "Data_Entry.csv").write_bytes(png(3))
    with pytest.raises(DataError, match=r"Data_Entry\.csv is no CSV but a PNG image\."):
        index_of(root)
