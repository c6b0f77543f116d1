import json
import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxrmodel.data.datasets.joins import join_rows, ledger_of, named_files
from cxrmodel.data.datasets.name_rules import AS_THEY_ARE, explain_mismatch, key_of, match_names
from cxrmodel.data.ledger import Reason
from cxrmodel.errors import DataError
from tests.data.datasets.test_joins import entries_of, listing_of

FILES = [f"{number:08d}_000.png" for number in range(1, 5)]


def renamed(change):
    return [change(name) for name in FILES]


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (lambda name: name.replace(".png", ".jpg"), "ending"),
        (lambda name: name.removesuffix(".png"), "ending"),
        (str.upper, "case"),
        (lambda name: f"images/{name}", "folder"),
        (lambda name: f"C:\\data\\images\\{name}", "folder"),
        (
            lambda name: f"/x/{name[:-4].upper()}.JPEG",
            "folder and ending",
        ),
        (lambda name: name.lstrip("0"), "leading zeros"),
        (lambda name: name.lstrip("0").removesuffix(".png"), "ending and leading zeros"),
    ],
)
def test_names_of_another_form_meet_their_files(change, rules):
    match = match_names(renamed(change), FILES, 1)
    assert match.resolve(pd.Series(renamed(change))).tolist() == FILES
    assert match.note == (
        f"The table's names differ from those of the files in {rules} alone, and are matched, as "
        f"none has two files: `{min(renamed(change))}` is the file `{FILES[0]}`."
    )


def test_names_of_three_parts_keep_their_folders():
    files = ["patient1/study1/view1.jpg", "patient2/study1/view1.jpg"]
    names = ["patient1/study1/view1.png", "patient2/study1/view1.png"]
    assert match_names(names, files, 3).resolve(pd.Series(names)).tolist() == files


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a.jpg", "a.jpeg"], ["a.png", "b.png"]),  # two names of one file
        (["a.jpg"], ["a.png", "a.dcm"]),  # two files of one name
        (["A.png", "b.png"], ["a.png", "a.PNG", "b.png"]),
        (["a.jpg", "gone.jpg"], ["a.png", "stray.png"]),  # neither side is whole
        (["a.png", "gone.png"], ["a.png"]),  # nothing is left to meet
        (["", "b.png"], ["a.png"]),
        (["1.png"], ["01.png", "001.png"]),
    ],
)
def test_where_there_is_doubt_names_stay_as_they_are(names, files):
    assert match_names(names, files, 1) is AS_THEY_ARE


def test_a_part_of_the_images_meets_a_table_of_all():
    names = renamed(lambda name: name.replace(".png", ".jpg"))
    resolved = match_names(names, FILES[:2], 1).resolve(pd.Series(names)).tolist()
    assert resolved == [*FILES[:2], *names[2:]]


def test_a_mismatch_shows_a_pair_and_how_many_would_meet():
    names = [*renamed(str.upper), "gone.png"]
    assert explain_mismatch(names, [*FILES[1:], "stray.png"], 1) == (
        f"The table names `{FILES[1].upper()}` for example, and there is a file `{FILES[1]}`: but "
        "for the case, 3 of 5 names without a file meet one of 4 files without a row. Write the "
        "files' names into the table."
    )
    assert explain_mismatch(["x.png"], ["y.png"], 1) == ""
    assert explain_mismatch([], FILES, 1) == ""


def write(root, names):
    lines = [f"{name},Mass,{number}" for number, name in enumerate(names)]
    root.mkdir(exist_ok=True)
    (root / "Data_Entry.csv").write_text(
        "Image Index,Finding Labels,Patient ID\n" + "\n".join(lines)
    )
    (root / "images").mkdir(exist_ok=True)
    for name in FILES:
        (root / "images" / name).write_bytes(b"x")


def test_the_index_has_the_files_names_and_says_so(tmp_path, index_of, caplog):
    root = tmp_path / "data"
    write(root, renamed(lambda name: name.replace(".png", ".jpg")))
    (root / "test_list.txt").write_text("00000001_000.jpg\n00000002_000.png\n")
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    (root / "BBox_List_2017.csv").write_text(f"{header}00000003_000.jpg,Mass,1,2,3,4\n")
    folder = index_of(root)
    index = pd.read_parquet(folder / "index.parquet")
    assert index["image"].tolist() == FILES
    assert index["patient_id"].tolist() == ["0", "1", "2", "3"]
    assert index["official"].fillna("").tolist() == ["test", "test", "", ""]
    assert pd.read_parquet(folder / "boxes.parquet")["image"].tolist() == [FILES[2]]
    notes = json.loads((folder / "notes.json").read_text())
    assert [note in caplog.text for note in notes] == [True]
    assert "in ending alone" in notes[0]


def test_names_that_nearly_meet_stop_with_an_example(tmp_path, index_of):
    write(tmp_path / "data", [*renamed(str.upper)[:3], "gone.png"])
    message = (
        r"Nothing of .* is usable: 4 rows in the table, 4 image files; image_missing 4, row_m"
        r"issing 4\. The table names `00000001_000\.PNG` for example, and there is a file `00000001"
    )
    with pytest.raises(DataError, match=message):
        index_of(tmp_path / "data")


def test_names_that_never_meet_stop_with_the_first_of_either(tmp_path, index_of):
    write(tmp_path / "data", ["x\x01", "y"])
    message = r"The first row names `x\\x01`, and the first file is `00000001_000\.png`\.$"
    with pytest.raises(DataError, match=message):
        index_of(tmp_path / "data")


STEMS = st.sampled_from(["a", "A", "b", "c", "1", ""])
ENDINGS = st.sampled_from([".png", ".PNG", ".jpg", ""])
FOLDERS = st.sampled_from(["", "x/", "y/", "..\\", "/"])
NAMES = st.builds(lambda *parts: "".join(parts), FOLDERS, STEMS, ENDINGS)
PATHS = st.builds(
    lambda *parts: "".join(parts),
    st.sampled_from(["", "x/", "y/"]),
    st.sampled_from(["a", "A", "b", "c", "1"]),
    st.sampled_from([".png", ".PNG", ".jpg"]),
)
PATIENTS = st.sampled_from(["1", "01", "2", "n/a", ""])


@settings(max_examples=200)
@given(
    st.lists(st.tuples(NAMES, PATIENTS), min_size=1, max_size=6),
    st.lists(PATHS, min_size=1, max_size=6, unique=True),
)
def test_each_row_is_used_once_or_has_a_reason(table, paths):
    names, patients = zip(*table, strict=True)
    said = {"1": "1", "01": "1", "2": "2", "n/a": "", "": ""}
    entries = entries_of(*names, patient=[said[each] for each in patients])
    files, surplus = named_files(listing_of(*sorted(paths)), 1)
    match = match_names(set(names), files["image"], 1)
    rows = join_rows(entries, files, 1, match)
    excluded = ledger_of(rows, files, surplus)
    used = rows[rows["reason"] == ""]

    assert set(excluded["reason"]) <= {str(reason) for reason in Reason}
    assert used["uri"].is_unique  # no file belongs to two rows
    assert used["image"].is_unique
    assert used["patient_id"].isin(["1", "2"]).all()
    unused_files = files[~files["image"].isin(rows["image"])]
    assert len(excluded) == len(rows) - len(used) + len(unused_files) + len(surplus)
    assert (rows["patient_id"] == [said[each] for each in patients]).all()
    for row, uri in used["uri"].items():  # no row has another row's image
        own, file = _bare(names[row]), _bare(uri)
        assert own == file
        if names[row] != uri.rpartition("/")[2]:  # then nothing else could have been meant
            key = key_of(names[row], match.rules, 1)
            for known in (set(names), set(files["image"])):
                assert [key_of(each, match.rules, 1) for each in known].count(key) == 1


def _bare(name):
    return re.sub(r"\.(png|jpg)$", "", re.split(r"[/\\]", name)[-1].casefold())
