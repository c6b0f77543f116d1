import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.data.index import INDEX_COLUMNS, build_index
from cxrmodel.data.ledger import Reason
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError


def touch(root, *uris):
    for uri in uris:
        (root / uri).parent.mkdir(parents=True, exist_ok=True)
        (root / uri).write_bytes(b"x")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def read(index, name="index"):
    return pd.read_parquet(index / f"{name}.parquet")


def test_index_has_the_documented_columns_in_csv_order(root, write_csv, index_of):
    write_csv(
        root / "Data_Entry_2017.csv",
        [("b.png", "Mass|Hernia", "002"), ("a.png", "No Finding", "1"), ("c.png", "edema", "1")],
    )
    touch(root, "images/a.png", "images/b.png", "images/c.png")
    (root / "train_val_list.txt").write_text("a.png\nc.png\n")
    (root / "test_list.txt").write_text("b.png\n")
    folder = index_of(root)
    index, listing = read(folder), read(folder, "listing")
    assert tuple(index.columns) == (*INDEX_COLUMNS, *PATHOLOGIES)
    assert index["source"].tolist() == ["nih"] * 3
    assert index["image"].tolist() == ["b.png", "a.png", "c.png"]
    assert index["uri"].tolist() == ["images/b.png", "images/a.png", "images/c.png"]
    assert index["patient_id"].tolist() == ["2", "1", "1"]
    assert index["any_abnormal"].tolist() == [1, 0, 1]
    assert index["official"].tolist() == ["test", "train_val", "train_val"]
    assert index[list(PATHOLOGIES)].sum(axis=1).tolist() == [2, 0, 1]
    assert index.loc[0, ["Hernia", "Mass"]].tolist() == [1, 1]
    assert {str(index[name].dtype) for name in ("any_abnormal", *PATHOLOGIES)} == {"Int8"}
    assert listing["image"].tolist() == index["image"].tolist()
    assert list(listing.columns) == ["image", "uri", "bytes", "version"]
    assert read(folder, "excluded").empty


def test_every_row_and_file_without_use_has_its_reason(root, write_csv, tmp_path):
    long = "x" * 201 + ".png"
    write_csv(
        root / "Data_Entry_2017.csv",
        [
            ("good.png", "Mass", "1"),
            ("gone.png", "Mass", "1"),
            ("good.png", "No Finding", "2"),
            ("../../etc/passwd", "Mass", "1"),
            ("images/good.png", "Mass", "1"),
            ("a\x01b.png", "Mass", "1"),
            (long, "Mass", "1"),
            ("who.png", "Mass", ""),
            ("unlabelled.png", "", "1"),
            ("odd.png", "Mass|Cold", "1"),
            ("both.png", "Mass|No Finding", "1"),
        ],
    )
    images = ("good", "who", "unlabelled", "odd", "both", "stray")
    touch(root, *(f"images/{name}.png" for name in images), "old/good.png")
    config = DataConfig(root=str(root))
    summary = build_index(config, scan_source(config, tmp_path / "scratch"), tmp_path)
    ledger = read(tmp_path, "excluded")
    assert list(ledger.itertuples(index=False, name=None)) == [
        ("gone.png", "image_missing", ""),
        ("good.png", "duplicate_row", "row 3 of the table"),
        ("../../etc/passwd", "bad_image_name", ""),
        ("images/good.png", "bad_image_name", ""),
        ("a\\x01b.png", "bad_image_name", ""),
        (long[:200], "bad_image_name", ""),
        ("who.png", "bad_patient_id", ""),
        ("unlabelled.png", "empty_labels", ""),
        ("odd.png", "unknown_label", "Cold"),
        ("both.png", "contradictory_labels", "Mass|No Finding"),
        ("stray.png", "row_missing", "images/stray.png"),
        ("good.png", "duplicate_file", "old/good.png beside images/good.png"),
    ]
    assert summary.pop("fingerprint")
    assert summary == {
        "dataset": "nih",
        "labels": list(PATHOLOGIES),
        "num_images": 1,
        "num_excluded": 12,
        "num_patients": 1,
        "num_boxes": 0,
        "notes": [],
        "excluded_by_reason": {
            "bad_image_name": 4,
            **dict.fromkeys(sorted({r for r in ledger["reason"] if r != "bad_image_name"}), 1),
        },
    }
    assert set(ledger["reason"]) <= set(Reason)


def clashing_root(root, write_csv, contents, num_images=4):
    """Images below each of some folders, of the same names."""
    names = [f"{number:03d}.png" for number in range(num_images)]
    write_csv(root / "Data_Entry_2017.csv", [(name, "Mass", name[:3]) for name in names])
    for folder, content in contents.items():
        for name in names:
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_bytes(content(name))


def test_masks_beside_images_stop_with_the_folders_and_the_setting(root, write_csv, index_of):
    contents = {"masks": lambda _: b"mask", "xrays": lambda name: name.encode() * 9}
    clashing_root(root, write_csv, contents)
    message = (
        r"4 of 4 images that the table names have several, different files .*data: in the folders "
        r"masks \(4\), xrays \(4\), for example masks/000\.png \(4 bytes\) and xrays/000\.png "
        r"\(63 bytes\)\. Set data\.images to the folder"
    )
    with pytest.raises(DataError, match=message):
        index_of(root)
    assert read(index_of(root, images="xrays"))["uri"].str.startswith("xrays/").all()


def test_different_files_of_one_size_are_no_copies(root, write_csv, index_of):
    clashing_root(
        root, write_csv, {"a": lambda name: b"a" + name.encode(), "b": lambda _: b"b" * 8}
    )
    with pytest.raises(DataError, match=r"different files .* a \(4\), b \(4\)"):
        index_of(root)


def test_copies_are_used_once(root, write_csv, index_of):
    clashing_root(root, write_csv, {"a/images": str.encode, "a/a/images": str.encode})
    folder = index_of(root)
    assert read(folder)["uri"].str.startswith("a/a/images/").all()
    assert read(folder, "excluded")["reason"].tolist() == ["duplicate_file"] * 4


def test_a_few_clashes_in_many_images_are_in_the_ledger(root, write_csv, index_of):
    clashing_root(root, write_csv, {"images": str.encode}, 100)
    touch(root, "old/050.png")
    excluded = read(index_of(root), "excluded")
    assert excluded["detail"].tolist() == ["old/050.png beside images/050.png"]
    (root / "old/051.png").write_bytes(b"another")
    with pytest.raises(DataError, match=r"2 of 100 images"):
        index_of(root)


def test_a_clash_of_files_that_the_table_does_not_name_is_none(root, write_csv, index_of):
    write_csv(root / "Data_Entry_2017.csv", [("a.png", "Mass", "1")])
    touch(root, "images/a.png", "images/thumb.png")
    (root / "old").mkdir()
    (root / "old/thumb.png").write_bytes(b"another")
    assert read(index_of(root))["image"].tolist() == ["a.png"]


def test_a_table_of_another_form_is_named_by_its_path(root, write_csv, index_of):
    (root / "sub").mkdir(parents=True)
    (root / "sub/Data_Entry_2017.csv").write_text("<html>Please log in</html>")
    touch(root, "a.png")
    with pytest.raises(DataError, match=r"/data/sub/Data_Entry_2017\.csv is no CSV but a web page"):
        index_of(root)


def test_fraction_is_the_stratified_draw_in_csv_order(root, write_csv, index_of):
    rows = [(f"{i:03d}.png", "Mass" if i % 5 == 0 else "No Finding", str(i)) for i in range(40)]
    write_csv(root / "Data_Entry_2017.csv", rows)
    touch(root, *(f"images/{name}" for name, _, _ in rows))
    folder = index_of(root, fraction=0.25, seed=7)
    drawn, _ = train_test_split(
        range(40), train_size=0.25, random_state=7, stratify=[i % 5 == 0 for i in range(40)]
    )
    assert read(folder)["image"].tolist() == [f"{i:03d}.png" for i in sorted(drawn)]
    assert read(folder)["any_abnormal"].sum() == 2  # 8 of 40 are abnormal, so 2 of 10
    assert read(folder, "excluded")["reason"].tolist() == ["not_sampled"] * 30


def test_a_fraction_too_small_to_stratify_says_so(make_root, index_of):
    with pytest.raises(DataError, match=r"data\.fraction = 0\.2 of 8 usable .* 3 are abnormal"):
        index_of(make_root(8), fraction=0.2)


def test_nothing_usable_gives_the_counts(root, write_csv, index_of):
    write_csv(root / "Data_Entry_2017.csv", [("a.png", "Mass", "1"), ("b.png", "Flu", "1")])
    touch(root, "b.png", "c.png")
    message = (
        r"Nothing of .*/data is usable: 2 rows in the table, 2 image files; "
        r"image_missing 1, row_missing 1, unknown_label 1\. 1 of 3 entries \(33\.3 %\) is left out"
    )
    with pytest.raises(DataError, match=message):
        index_of(root)


def test_images_in_both_official_lists_are_in_neither_part(root, write_csv, index_of, caplog):
    write_csv(root / "Data_Entry_2017.csv", [("a.png", "Mass", "1"), ("b.png", "Mass", "2")])
    touch(root, "a.png", "b.png")
    (root / "train_val_list.txt").write_text("a.png\nb.png\n")
    (root / "test_list.txt").write_text("b.png\n")
    official = read(index_of(root))["official"]
    assert official[0] == "train_val"
    assert official.isna().tolist() == [False, True]
    assert "1 images are in both official lists" in caplog.text


@pytest.mark.parametrize(
    ("change", "encoding"),
    [(str, "utf-16"), (str.upper, "utf-8"), (lambda text: text.replace(".png", ""), "utf-8")],
)
def test_official_lists_of_another_form_are_read(change, encoding, root, write_csv, index_of):
    write_csv(root / "Data_Entry_2017.csv", [("a.png", "Mass", "1"), ("b.png", "Mass", "2")])
    touch(root, "a.png", "b.png")
    (root / "train_val_list.txt").write_text(change("a.png\r\n"), encoding)
    (root / "test_list.txt").write_text(change("b.png\r\n"), encoding)
    assert read(index_of(root))["official"].tolist() == ["train_val", "test"]


def test_two_spellings_of_one_name_are_not_told_to_choose_a_folder(root, write_csv, index_of):
    composed, decomposed = "\u00e9.png", "e\u0301.png"
    write_csv(root / "Data_Entry_2017.csv", [(composed, "Mass", "1")])
    touch(root, composed)
    (root / decomposed).write_bytes(b"another")
    with pytest.raises(DataError, match=r"the root itself \(2\).*rename or delete one of each\."):
        index_of(root)


def test_same_input_gives_the_same_bytes(make_root, index_of):
    root = make_root(6)
    one, two = index_of(root, "one"), index_of(root, "two")
    for name in ("index", "listing", "excluded"):
        file = f"{name}.parquet"
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_real_sample_is_indexed_whole(real_sample, index_of):
    folder = index_of(real_sample)
    index = read(folder)
    assert len(index) == 400
    assert index["patient_id"].nunique() == 320
    assert (index["any_abnormal"] == 0).sum() == 160
    assert index[["Pneumonia", "Infiltration", "Hernia"]].sum().tolist() == [102, 82, 11]
    assert index["official"].isna().all()
    assert read(folder, "excluded")["reason"].value_counts().to_dict() == {"image_missing": 111_720}
