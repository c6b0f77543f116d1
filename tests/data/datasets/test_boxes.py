import logging

import pandas as pd
import pytest

from cxrmodel.data.datasets.boxes import BOX_LIST, read_boxes
from cxrmodel.errors import DataError
from cxrmodel.phantom import write_phantoms

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
IMAGES = pd.Series(["a.png", "b.png"])


def boxes_of(text, tmp_path, name=BOX_LIST):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_boxes(path, IMAGES)


def test_rows_become_boxes(tmp_path):
    text = f"{HEADER}\na.png,Infiltrate,225.5,547,86.75,79\nb.png, mass ,0,0,1,1\n"
    boxes = boxes_of(text, tmp_path)
    assert boxes.to_dict("records") == [
        {"image": "a.png", "pathology": "Infiltration", "x": 225.5, "y": 547.0, "width": 86.75,
         "height": 79.0},
        {"image": "b.png", "pathology": "Mass", "x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0},
    ]  # fmt: skip
    assert {str(kind) for kind in boxes.dtypes[["x", "y", "width", "height"]]} == {"float32"}


@pytest.mark.parametrize("separator", [";", "\t"])
def test_the_header_tells_what_separates_the_fields(separator, tmp_path):
    text = f"\ufeff{HEADER}\r\na.png,Mass,1,2,3,4\r\n".replace(",", separator)
    assert boxes_of(text, tmp_path).to_numpy().tolist() == [["a.png", "Mass", 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("Finding Label,Image Index,x,y,w,h", "Mass,a.png,1,2,3,4"),
        (",Image Index,Finding Label,Width,Height,X,Y", "7,a.png,Mass,3,4,1,2"),
        ("Image Index;Finding Label;Bbox [x;y;w;h]", "a.png;Mass;1,0;2,0;3,0;4,0"),
        ("\n\nImage Index,Finding Label,Bbox [x,y,w,h],,,", "a.png,Mass,1,2,3,4,,,"),
    ],
)
def test_columns_are_those_that_the_header_names(header, row, tmp_path, caplog):
    boxes = boxes_of(f"{header}\n{row}\n", tmp_path)
    assert boxes.to_numpy().tolist() == [["a.png", "Mass", 1, 2, 3, 4]]
    assert not caplog.text


@pytest.mark.parametrize("header", ["", "Image Index,Finding Label,x1,y1,x2,y2\n"])
def test_an_order_of_columns_that_no_header_names_is_told(header, tmp_path, caplog):
    boxes = boxes_of(f"{header}a.png,Mass,1,2,3,4\n", tmp_path)
    assert boxes.to_numpy().tolist() == [["a.png", "Mass", 1, 2, 3, 4]]
    assert "does not name all of image, pathology, x, y, width, height" in caplog.text


def test_names_of_another_form_are_matched_where_none_is_known(tmp_path, caplog):
    boxes = boxes_of(f"{HEADER}\na.jpg,Mass,1,2,3,4\nb.jpg,Mass,1,2,3,4\n", tmp_path)
    assert boxes["image"].tolist() == ["a.png", "b.png"]
    assert "The box list's names differ from those of the files in ending alone" in caplog.text


def test_rows_that_are_no_boxes_are_counted_and_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    bad = [
        "a.png,Pneumonie,1,1,1,1",
        "a.png,No Finding,1,1,1,1",
        "a.png,Mass,1,1,1",
        "a.png,Mass,one,1,1,1",
        "a.png,Mass,nan,1,1,1",
        "a.png,Mass,1,1,inf,1",
        "a.png,Mass,1e300,1,1,1",
        "a.png,Mass,-1,1,1,1",
        "a.png,Mass,1,1,0,1",
        "a.png",
    ]
    text = "\r\n".join([HEADER, *bad, "gone.png,Mass,1,1,1,1", "a.png,Mass,1,2,3,4,,,"])
    boxes = boxes_of(text, tmp_path)
    assert boxes.to_numpy().tolist() == [["a.png", "Mass", 1, 2, 3, 4]]
    counts = "1 boxes; left out are 1 of images that are not in the index and 10 rows without"
    assert counts in caplog.text
    named = "10 of 12 rows of BBox_List_2017.csv are left out, since they name no known pathology"
    assert f"{named} or no box, for example 'a.png, Pneumonie, 1, 1, 1, 1'" in caplog.text


def test_boxes_beyond_the_edge_are_named(tmp_path, caplog):
    rows = ["a.png,Mass,1000,10,50,20", "b.png,Mass,1024,0,5,5", "a.png,Mass,0,0,1024,1024.5"]
    boxes = boxes_of("\n".join([HEADER, *rows]), tmp_path)
    assert boxes["image"].tolist() == ["a.png", "a.png"]  # nothing of the second is in the image
    expected = (
        "2 of 3 boxes of BBox_List_2017.csv reach beyond the edge, for example a.png (1000, 10, "
        "50, 20), and count only within it"
    )
    assert expected in caplog.text


@pytest.mark.parametrize("text", [None, "", HEADER, HEADER + "\n"])
def test_no_list_and_an_empty_one_give_no_boxes(text, tmp_path):
    empty = read_boxes(tmp_path / "none", IMAGES) if text is None else boxes_of(text, tmp_path)
    assert list(empty.columns) == ["image", "pathology", "x", "y", "width", "height"]
    assert len(empty) == 0
    assert str(empty["x"].dtype) == "float32"


def test_a_quote_that_never_ends_is_an_error(tmp_path):
    with pytest.raises(
        DataError,
        match=r"BBox_List_2017\.csv cannot be read as a CSV: a quote that opens in line 2 is never",
    ):
        boxes_of(f'{HEADER}\n"a.png,Mass,1,1,1,1\n', tmp_path)


def test_the_index_has_the_boxes_of_its_images(tmp_path, index_of):
    root = tmp_path / "phantoms"
    write_phantoms(root, 12, size_px=64)
    listed = (root / BOX_LIST).read_text().splitlines()[1:]
    (root / BOX_LIST).rename(root / "bbox_list_2017.CSV")  # any case, like the other lists
    boxes = pd.read_parquet(index_of(root) / "boxes.parquet")
    assert len(boxes) == len(listed) > 0
    (root / "images" / boxes["image"][0]).unlink()
    fewer = pd.read_parquet(index_of(root, "fewer") / "boxes.parquet")
    assert len(fewer) == len(listed) - (boxes["image"] == boxes["image"][0]).sum()


def test_a_data_set_without_boxes_has_an_empty_table(make_root, index_of):
    assert pd.read_parquet(index_of(make_root(2)) / "boxes.parquet").empty


def test_real_sample_has_its_boxes(real_sample, index_of):
    folder = index_of(real_sample)
    boxes, index = (pd.read_parquet(folder / f"{name}.parquet") for name in ("boxes", "index"))
    lines = (real_sample / BOX_LIST).read_text().splitlines()[1:]
    expected = [line for line in lines if line.split(",")[0] in set(index["image"])]
    assert len(boxes) == len(expected) > 0
    assert (boxes["x"] + boxes["width"]).max() <= 1024
    assert (boxes["y"] + boxes["height"]).max() <= 1024
