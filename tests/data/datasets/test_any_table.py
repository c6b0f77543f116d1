import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrmodel.config import DataConfig
from cxrmodel.data.datasets.registry import read_tables
from cxrmodel.errors import DataError

IMAGES = [f"ward{number % 2}/p{number // 2}/img{number}.png" for number in range(6)]
TABLE = pd.DataFrame(
    {
        "filename": IMAGES,
        "pid": list("aabbcc"),
        "Projection": ["PA", "AP", "LL", "PA", "PA", "L"],
        "Gender": ["M", "female", "M", "F", "?", "F"],
        "age_years": ["50", "", "51Y", "300", "7", "8"],
        "Effusion": ["1", "0", "1", "", "0", "0"],
        "Tube": ["no", "no", "yes", "yes", "no", "no"],
        "comment": list("uvwxyz"),
        "Split": ["train", "TRAIN", "valid", "val", "test", "7"],
    }
)


def read(table=TABLE, uris=IMAGES, name="meta.csv", **settings):
    content = table if isinstance(table, bytes) else table.to_csv(index=False).encode()
    config = DataConfig(dataset="table", **settings)
    return read_tables(config, [content], [name], False, uris)


def labels_of(entries):
    frame = entries.rows[list(entries.labels)].astype(object)
    return [[None if pd.isna(x) else int(x) for x in row] for row in frame.to_numpy()]


def test_columns_with_usual_names_are_found_and_said():
    image_set, entries = read()
    rows = entries.rows
    assert (image_set.name, image_set.name_parts) == ("table", 3)
    assert rows["image"].tolist() == IMAGES
    assert rows["patient_id"].tolist() == list("aabbcc")
    assert rows["view"].fillna("").tolist() == ["PA", "AP", "lateral", "PA", "PA", "lateral"]
    assert rows["sex"].fillna("").tolist() == ["M", "F", "M", "F", "", "F"]
    assert rows["age"].fillna(-1).tolist() == [50, -1, 51, -1, 7, 8]
    assert rows["official"].fillna("").tolist() == ["train", "train", "val", "val", "test", ""]
    assert entries.labels == ("Effusion", "Tube")
    assert labels_of(entries) == [[1, 0], [0, 0], [1, 1], [None, 1], [0, 0], [0, 0]]
    assert rows["any_abnormal"].tolist() == [1, 0, 1, 1, 0, 0]
    assert entries.notes == (
        "meta.csv is read as image 'filename', patient 'pid', view 'Projection', sex 'Gender', age "
        "'age_years', official part 'Split', and labels from the columns 'Effusion', 'Tube'. The "
        "settings data.columns say otherwise where that is wrong.",
    )


def test_columns_of_ones_and_zeros_that_say_something_else_are_no_labels():
    others = ["Follow-up #", "Unnamed: 0", "male", "is_train", "Lateral"]
    flags = {each: list("010101") for each in others}
    coded = TABLE.assign(**flags, Tube="0", Gender=list("010101"), Split=list("010011"))
    _, entries = read(coded)
    assert entries.labels == ("Effusion",)
    assert (
        "labels from the column 'Effusion' (not from 'Follow-up #', 'Unnamed: 0', 'male', "
        "'is_train', 'Lateral', by the name; not from 'Tube', where nothing is found)"
        in entries.notes[0]
    )
    assert entries.notes[1].startswith(
        "Nothing in the column 'Gender' of meta.csv can be read as sex (it says '0', '1'), so"
    )
    assert read(coded, columns={"labels": ("male", "Effusion")})[1].labels == ("male", "Effusion")


def test_given_columns_win_and_need_no_note_once_all_are_given():
    columns = {"labels": ("Tube",), "patient_id": "COMMENT", "image": "filename"}
    _, entries = read(TABLE[["filename", "comment", "Tube", "Effusion"]], columns=columns)
    assert entries.rows["patient_id"].tolist() == list("uvwxyz")
    assert entries.labels == ("Tube",)
    assert entries.notes == ()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"view": "Projektion"},
         r"data\.columns\.view names 'Projektion', and meta\.csv has no such column; did you mean "
         r"Projection\? Its columns: 'filename', 'pid'"),
        ({"labels": ("Effusion", "Mass")}, r"data\.columns\.labels names 'Mass'"),
    ],
)  # fmt: skip
def test_a_given_column_that_is_not_there_is_named(columns, message):
    with pytest.raises(DataError, match=message):
        read(columns=columns)


def test_a_column_without_a_usual_name_is_found_by_the_files_it_names():
    _, entries = read(TABLE.rename(columns={"filename": "Radiograph No."}))
    assert entries.rows["image"].tolist() == IMAGES


def test_a_misleading_usual_name_loses_against_the_files():
    table = TABLE.assign(id=range(6)).rename(columns={"filename": "xray"})
    assert read(table)[1].rows["image"].tolist() == IMAGES


def test_a_table_of_no_image_shows_its_columns():
    with pytest.raises(DataError, match=r"No column of meta\.csv names an image, .*: 'a', 'b'\."):
        read(pd.DataFrame({"a": ["1"], "b": ["2"]}))


@pytest.mark.parametrize(
    ("change", "num_parts"),
    [
        (lambda name: name, 3),
        (lambda name: f"/home/me/data/{name}", 3),
        (lambda name: f"C:\\films\\{name}".replace("/", "\\"), 3),
        (lambda name: f"./{name}", 3),
        (lambda name: name.rsplit("/", 1)[-1], 1),
        (lambda name: name.removesuffix(".png"), 3),
    ],
)
def test_as_many_parts_of_a_path_count_as_files_have(change, num_parts):
    image_set, _ = read(TABLE.assign(filename=TABLE["filename"].map(change)))
    assert image_set.name_parts == num_parts


@pytest.mark.parametrize(
    ("cells", "names", "labels"),
    [
        (["Mass|Nodule", "No Finding", "mass"], ("Mass", "Nodule"), [[1, 1], [0, 0], [1, 0]]),
        (["Mass; Nodule", "normal", ""], ("Mass", "Nodule"), [[1, 1], [0, 0], [None, None]]),
        (["['Mass', 'Nodule']", "[]", "['normal']"], ("Mass", "Nodule"),
         [[1, 1], [None, None], [0, 0]]),
        (["TB", "healthy", "TB"], ("TB",), [[1], [0], [1]]),
        (["Mass,  large ,Nodule", "Mass", "Normal"], ("Mass", "Nodule", "large"),
         [[1, 1, 1], [1, 0, 0], [0, 0, 0]]),
    ],
)  # fmt: skip
def test_names_in_one_column_become_labels(cells, names, labels):
    table = pd.DataFrame({"image": IMAGES[:3], "patient": [1, 2, 3], "Diagnosis": cells})
    _, entries = read(table)
    assert entries.labels == names
    assert labels_of(entries) == labels
    assert entries.reasons.tolist() == ["", "", ""]


def test_rows_without_a_name_are_counted_in_the_note():
    table = pd.DataFrame({"image": IMAGES[:3], "patient": [1, 2, 3], "dx": ["['Mass']", "[]", ""]})
    _, entries = read(table, columns={"labels": ("dx",)})
    assert "2 of 3 rows have no name there and count as not labelled" in entries.notes[0]
    _, entries = read(table.assign(dx=["Mass", "No Finding", "Mass"]), columns={"labels": ("dx",)})
    assert "not labelled" not in entries.notes[0]


def test_a_given_separator_splits_names_and_nothing_else_does():
    table = pd.DataFrame({"image": IMAGES[:1], "patient": [1], "dx": ["Mass, left/Nodule"]})
    _, entries = read(table, columns={"labels": ("dx",), "separator": "/"})
    assert entries.labels == ("Mass, left", "Nodule")


def test_free_text_is_no_column_of_names():
    table = pd.DataFrame({"image": [f"{n}.png" for n in range(201)], "patient": range(201)})
    table["findings"] = [f"a long text no {n}" for n in range(201)]
    with pytest.raises(
        DataError, match=r"'findings' of meta\.csv holds 201 different names .*free"
    ):
        read(table)


@pytest.mark.parametrize(
    ("uncertain", "expected", "reason"),
    [("negative", 0, ""), ("positive", 1, ""), ("unknown", None, ""),
     ("exclude", None, "uncertain_label")],
)  # fmt: skip
def test_uncertain_cells_become_what_is_asked(uncertain, expected, reason):
    table = pd.DataFrame({"image": IMAGES[:2], "patient": [1, 2], "Mass": ["-1", "1.0"]})
    _, entries = read(table, uncertain=uncertain)
    assert labels_of(entries) == [[expected], [1]]
    assert entries.reasons.tolist() == [reason, ""]


def test_odd_and_contradictory_cells_have_a_reason():
    table = pd.DataFrame(
        {"image": IMAGES[:3], "patient": [1, 2, 3], "Mass": ["1", "maybe", ""],
         "No finding": ["1", "0", "1"]}
    )  # fmt: skip
    _, entries = read(table, columns={"labels": ("Mass", "No finding")})
    assert entries.labels == ("Mass",)
    assert entries.reasons.tolist() == ["contradictory_labels", "unknown_label", ""]
    assert entries.details.tolist() == ["", "Mass maybe", ""]
    assert labels_of(entries)[2] == [0]


def test_a_table_without_labels_has_none():
    _, entries = read(TABLE[["filename", "pid", "comment"]])
    assert entries.labels == ()
    assert entries.rows["any_abnormal"].isna().all()


@pytest.mark.parametrize("table", [TABLE.drop(columns="pid"), None], ids=["a table", "none"])
def test_images_of_nobody_are_refused_with_the_settings(table):
    message = r"which patient an image is of\. Set data\.columns\.patient_id .*ward0/p0/img0\.png"
    config = DataConfig(dataset="table")
    contents = [] if table is None else [table.to_csv().encode()]
    with pytest.raises(DataError, match=message):
        read_tables(config, contents, ["meta.csv"][: len(contents)], False, IMAGES)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab01,;|'\"[]é \t", max_size=6), min_size=2, max_size=6))
def test_any_cells_give_a_row_each(cells):
    numbers = range(len(cells))
    table = pd.DataFrame({"image": [f"{n}.png" for n in numbers], "pid": "1", "labels": cells})
    stream = io.StringIO()
    table.to_csv(stream, index=False)
    _, entries = read(stream.getvalue().encode(), [f"{n}.png" for n in numbers])
    assert entries.rows["image"].tolist() == [f"{n}.png" for n in numbers]
    assert len(entries.reasons) == len(entries.details) == len(cells)
    assert (
        entries.rows[list(entries.labels)]
        .isin([0, 1])
        .where(entries.rows[list(entries.labels)].notna(), True)
        .all(axis=None)
    )


class TestIndex:
    @pytest.fixture
    def root(self, tmp_path):
        for uri in IMAGES:
            path = tmp_path / "data" / uri
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return tmp_path / "data"

    @pytest.mark.parametrize(
        ("name", "write"),
        [
            ("meta.tsv", lambda path: TABLE.to_csv(path, sep="\t", index=False)),
            ("meta.csv.gz", lambda path: TABLE.to_csv(path, index=False)),
            ("meta.csv.zip", lambda path: TABLE.to_csv(path, index=False)),
            ("meta.parquet", TABLE.to_parquet),
        ],
    )
    def test_every_form_of_table_is_found_and_read(self, name, write, root, index_of):
        write(root / name)
        index = pd.read_parquet(index_of(root, dataset="table") / "index.parquet")
        assert index["image"].tolist() == [IMAGES[n] for n in (0, 1, 3, 4)]
        assert index["Effusion"].fillna(-1).tolist() == [1, 0, -1, 0]
        assert set(index["source"]) == {"table"}

    def test_lateral_views_stay_where_asked(self, root, index_of):
        TABLE.to_csv(root / "meta.csv", index=False)
        index = pd.read_parquet(index_of(root, dataset="table", views="all") / "index.parquet")
        assert index["view"].tolist() == ["PA", "AP", "lateral", "PA", "PA", "lateral"]

    def test_the_path_may_name_the_patient(self, root, index_of):
        folder = index_of(root, dataset="table", patient_from=r"/(p\d)/")
        index = pd.read_parquet(folder / "index.parquet")
        assert sorted(index["image"]) == [f"img{n}.png" for n in range(6)]
        assert index.set_index("image")["patient_id"].sort_index().tolist() == [
            "p0", "p0", "p1", "p1", "p2", "p2",
        ]  # fmt: skip
        assert index.columns[-1] == "any_abnormal"

    def test_each_image_its_own_patient_is_said_loudly(self, root, index_of, caplog):
        folder = index_of(root, dataset="table", patient_from="image")
        assert pd.read_parquet(folder / "index.parquet")["patient_id"].nunique() == 6
        assert "each image counts as another patient's" in caplog.text
        assert "each image counts as another" in (folder / "notes.json").read_text()


@pytest.mark.parametrize(
    ("rule", "message"),
    [("(", "is not a regular expression"), ("p\\d", "has 0 groups and needs one"),
     ("(a)(b)", "has 2 groups")],
)  # fmt: skip
def test_a_rule_for_patients_is_checked_at_once(rule, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(patient_from=rule)
