"""The synthetic data set: NIH's layout to the byte, on every run."""

import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.phantom import write_phantoms
from cxrmodel.phantom.population import sample_entries

NUM_IMAGES = 60
SIZE_PX = 64
ENTRY_HEADER = (
    b"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    b"OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
NIH_BOX_LABELS = {
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate"),
    *("Mass", "Nodule", "Pneumonia", "Pneumothorax"),
}


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def entry_rows(root: Path) -> list[list[str]]:
    with (root / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def box_rows(root: Path) -> list[list[str]]:
    with (root / "BBox_List_2017.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def image_names(root: Path) -> set[str]:
    return {path.name for path in (root / "images").iterdir()}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, NUM_IMAGES, size_px=SIZE_PX, workers=1)
    return root


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_and_times_on_every_run(phantoms: Path, tmp_path: Path, workers: int) -> None:
    write_phantoms(tmp_path, NUM_IMAGES, size_px=SIZE_PX, workers=workers)
    assert contents(tmp_path) == contents(phantoms)
    times = {p.stat().st_mtime for p in tmp_path.rglob("*") if p.is_file()}
    assert times == {1504224000.0}  # 2017-09-01T00:00:00Z


def test_another_seed_gives_other_images(phantoms: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, 2, seed=1, size_px=SIZE_PX)
    name = "images/00000001_000.png"
    assert contents(tmp_path)[name] != contents(phantoms)[name]


def test_layout_is_nihs(phantoms: Path) -> None:
    files = contents(phantoms)
    assert files["Data_Entry_2017_v2020.csv"].startswith(ENTRY_HEADER)
    assert files["BBox_List_2017.csv"].startswith(b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    assert {name for name in files if not name.startswith("images/")} == {
        *("Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"),
        *("train_val_list.txt", "test_list.txt"),
    }
    assert len(image_names(phantoms)) == NUM_IMAGES


def test_rows_hold_values_of_nihs_form(phantoms: Path) -> None:
    for name, labels, follow_up, patient, age, sex, view, *original in entry_rows(phantoms):
        assert name == f"{int(patient):08d}_{int(follow_up):03d}.png"
        assert labels == "No Finding" or set(labels.split("|")) <= set(PATHOLOGIES)
        assert 0 < int(age) < 100
        assert (sex in ("M", "F"), view in ("PA", "AP"), len(original)) == (True, True, 4)


def test_some_rows_lack_their_image_and_no_image_lacks_its_row(phantoms: Path) -> None:
    listed = {row[0] for row in entry_rows(phantoms)}
    assert image_names(phantoms) < listed


def test_images_are_grey_but_for_a_few_opaque_rgba_files(phantoms: Path) -> None:
    modes: Counter[str] = Counter()
    for path in (phantoms / "images").iterdir():
        with Image.open(path) as image:
            modes[image.mode] += 1
            assert image.size == (SIZE_PX, SIZE_PX)
            if image.mode == "RGBA":
                red, green, blue, alpha = np.moveaxis(np.asarray(image), 2, 0)
                assert (red == green).all()
                assert (red == blue).all()
                assert (alpha == 255).all()
    assert modes.keys() == {"L", "RGBA"}
    assert 1 <= modes["RGBA"] <= 0.05 * NUM_IMAGES


def test_boxes_are_inside_images_that_carry_their_label(phantoms: Path) -> None:
    labels = {row[0]: row[1].replace("Infiltration", "Infiltrate") for row in entry_rows(phantoms)}
    boxes = box_rows(phantoms)
    assert len(boxes) > 10
    for name, finding, *numbers in boxes:
        x, y, width, height = map(float, numbers)
        assert finding in NIH_BOX_LABELS
        assert finding in labels[name].split("|")
        assert name in image_names(phantoms)
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert max(x + width, y + height) <= 1024  # like NIH, whatever the size of the files
    assert any(float(x) > SIZE_PX for _, _, x, *_ in boxes)


def test_lists_are_complete_and_disjoint_by_patient(phantoms: Path) -> None:
    train_val = (phantoms / "train_val_list.txt").read_text().split()
    test = (phantoms / "test_list.txt").read_text().split()
    assert sorted(train_val + test) == sorted(row[0] for row in entry_rows(phantoms))
    assert not {name[:8] for name in train_val} & {name[:8] for name in test}
    assert 0.1 < len(test) / len(train_val + test) < 0.4


@pytest.mark.parametrize("seed", range(4))
def test_all_findings_are_in_a_small_set(seed: int) -> None:
    entries = sample_entries(240, seed)
    assert sum(not entry.missing for entry in entries) == 240
    counts = Counter(finding for entry in entries for finding in entry.spec.findings)
    assert min(counts[finding] for finding in PATHOLOGIES) >= 2
    healthy = sum(not entry.spec.findings for entry in entries) / len(entries)
    assert 0.35 < healthy < 0.6
    lying = sum(entry.spec.view == "AP" for entry in entries) / len(entries)
    assert 0.3 < lying < 0.55
    assert 2 <= max(len(entry.spec.findings) for entry in entries) <= 4


def test_a_patient_keeps_the_sex_and_never_grows_younger() -> None:
    entries = sample_entries(240, seed=0)
    later = [(a.spec, b.spec) for a, b in pairwise(entries)]
    same = [(a, b) for a, b in later if a.patient_id == b.patient_id]
    assert len(same) > 50
    assert all(a.sex == b.sex and a.age <= b.age for a, b in same)
    assert all(b.follow_up == a.follow_up + 1 for a, b in same)


def test_an_image_that_is_there_is_not_drawn_again(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 6, size_px=SIZE_PX)
    before = contents(tmp_path)
    kept, *_, lost = sorted((tmp_path / "images").iterdir())
    mark = before[f"images/{lost.name}"]
    kept.write_bytes(mark)
    lost.unlink()
    write_phantoms(tmp_path, 6, size_px=SIZE_PX)
    assert contents(tmp_path) == before | {f"images/{kept.name}": mark}


def test_a_stopped_run_goes_on_to_the_same_set(phantoms: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path, NUM_IMAGES, size_px=SIZE_PX, workers=1, report=stop)
    assert 3 <= len(list((tmp_path / "images").glob("*.png"))) < NUM_IMAGES
    assert not (tmp_path / "Data_Entry_2017_v2020.csv").exists()
    write_phantoms(tmp_path, NUM_IMAGES, size_px=SIZE_PX)
    assert contents(tmp_path) == contents(phantoms)


def test_a_larger_set_extends_a_smaller_one(phantoms: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path, 5, size_px=SIZE_PX)
    small = {name: data for name, data in contents(tmp_path).items() if name.endswith(".png")}
    large = contents(phantoms)
    assert len(small) == 5
    assert all(large[name] == data for name, data in small.items())


def test_report_counts_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantoms(tmp_path, 4, size_px=SIZE_PX, report=lambda *progress: seen.append(progress))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, r"num_images must be 1 or more, got 0"),
        ({"size_px": 100}, r"size_px must be a positive multiple of 64, got 100"),
        ({"size_px": 0}, r"size_px must be a positive multiple of 64, got 0"),
        ({"seed": -1}, r"seed must be 0 or more, got -1"),
        ({"workers": 0}, r"workers must be 1 or more, or None for one per core, got 0"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_phantoms(tmp_path, **{"num_images": 2, "size_px": SIZE_PX} | arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_another_set_is_refused(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 2, size_px=SIZE_PX)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"root must be empty or hold images of this seed"):
        write_phantoms(tmp_path, 2, seed=1, size_px=SIZE_PX)
    assert contents(tmp_path) == before
