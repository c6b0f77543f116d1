import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from cxrmodel.config import SplitConfig
from cxrmodel.data import splits
from cxrmodel.data.splits import NUM_FOLDS, check_leakage, split_images
from cxrmodel.errors import LeakageError, SplitError


def table(patients, abnormal=None, official=None):
    count = len(patients)
    return pd.DataFrame(
        {
            "image": [f"{row:05d}.png" for row in range(count)],
            "patient_id": [str(patient) for patient in patients],
            "any_abnormal": abnormal if abnormal is not None else np.arange(count) % 2,
            "official": official if official is not None else [None] * count,
        }
    )


def run(directory, index, method="patient", status="ok", seed=42, left_out=None):
    index.to_parquet(directory / "index.parquet")
    images = pd.DataFrame({"image": index["image"], "crc32": 1, "status": status})
    images.to_parquet(directory / "images.parquet")
    config = SplitConfig(method=method, seed=seed)
    summary = split_images(config, directory, directory, directory, left_out)
    leakage = json.loads((directory / "leakage.json").read_text())
    return pd.read_parquet(directory / "split.parquet"), leakage, summary


PAIRS = table(np.arange(400) // 2)  # 200 patients of one abnormal and one other image each


class TestPatient:
    def test_is_70_15_15_stratified_and_disjoint(self, tmp_path):
        split, leakage, summary = run(tmp_path, PAIRS)
        assert list(split.columns) == ["image", "split"]
        assert split["image"].tolist() == PAIRS["image"].tolist()
        abnormal = PAIRS["any_abnormal"].groupby(split["split"]).agg(["size", "mean"])
        assert abnormal["size"].to_dict() == {"train": 280, "val": 60, "test": 60}
        assert abnormal["mean"].tolist() == [0.5, 0.5, 0.5]
        assert leakage == {
            "method": "patient",
            "num_train": 280,
            "num_val": 60,
            "num_test": 60,
            "num_patients_train": 140,
            "num_patients_val": 30,
            "num_patients_test": 30,
            "shared_train_val": 0,
            "shared_train_test": 0,
            "shared_val_test": 0,
            "leaking_test_fraction": 0.0,
        }
        assert summary.items() <= leakage.items()

    def test_same_seed_same_bytes_and_another_seed_another_split(self, tmp_path):
        run(tmp_path, PAIRS)
        first = (tmp_path / "split.parquet").read_bytes()
        run(tmp_path, PAIRS)
        assert (tmp_path / "split.parquet").read_bytes() == first
        run(tmp_path, PAIRS, seed=1)
        assert (tmp_path / "split.parquet").read_bytes() != first

    def test_images_without_pixels_take_no_part(self, tmp_path):
        status = ["damaged_image" if row < 10 else "ok" for row in range(400)]
        split, _, _ = run(tmp_path, PAIRS, status=status)
        assert split["image"].tolist() == PAIRS["image"].tolist()[10:]
        assert pd.read_parquet(tmp_path / "excluded.parquet").empty

    def test_one_kind_alone_can_be_split(self, tmp_path):
        split, _, _ = run(tmp_path, table(np.arange(40), abnormal=[1] * 40))
        assert split["split"].value_counts().to_dict() == {"train": 28, "val": 6, "test": 6}

    def test_images_of_which_nothing_is_known_are_split_all_the_same(self, tmp_path):
        abnormal = pd.array([None] * 100 + [0, 1] * 150, "Int8")
        split, _, _ = run(tmp_path, PAIRS.assign(any_abnormal=abnormal))
        assert split["split"].value_counts().to_dict() == {"train": 280, "val": 60, "test": 60}
        is_abnormal = pd.Series(abnormal == 1).fillna(False).astype(float)
        means = is_abnormal.groupby(split["split"]).mean()
        assert means.to_numpy() == pytest.approx(3 / 8, abs=0.02)
        nothing = PAIRS.assign(any_abnormal=pd.array([None] * 400, "Int8"))
        for method in ("patient", "rows"):
            (tmp_path / method).mkdir()
            counts = run(tmp_path / method, nothing, method)[0]["split"].value_counts()
            assert counts.to_dict() == {"train": 280, "val": 60, "test": 60}

    def test_what_is_not_known_is_said_where_there_is_too_little(self, tmp_path):
        nothing = table(range(12), pd.array([None] * 12, "Int8"))
        with pytest.raises(SplitError, match=r"0 with .* 12 without \(12 of these not known\)"):
            run(tmp_path, nothing)

    def test_too_few_patients(self, tmp_path):
        message = (
            r"too little data for 20 folds of patients: 40 images of 19 patients, "
            r"20 with a listed finding and 20 without\. At least 20 patients, and 20 images with "
        )
        with pytest.raises(SplitError, match=message):
            run(tmp_path, table(np.arange(40) % 19))

    def test_what_to_do_is_not_what_is_done_already(self, tmp_path):
        few = table(np.arange(40) % 19)
        with pytest.raises(SplitError, match=r"needed\. Set data\.fraction higher; where 1"):
            run(tmp_path, few, left_out={"not_sampled": 60, "image_missing": 1})
        with pytest.raises(SplitError, match=r"Use images of more patients: data\.root") as caught:
            run(tmp_path, few, left_out={"bad_patient_id": 30})
        assert "fraction" not in str(caught.value)
        assert "The index left out: bad_patient_id 30." in str(caught.value)

    def test_twenty_patients_and_twenty_images_of_one_kind_are_enough(self, tmp_path):
        kinds = np.arange(25) < 20
        split, _, _ = run(tmp_path, table(np.arange(25) % 20, abnormal=kinds))
        assert set(split["split"]) == {"train", "val", "test"}
        with pytest.raises(SplitError, match="20 images with a listed finding or 20 without"):
            run(tmp_path, table(np.arange(24) % 20, abnormal=kinds[1:]))

    def test_each_patient_goes_where_chi_squared_grows_least(self):
        # Totals 4 and 4. The patient of three normal images comes first, to fold 0, so the one of
        # three abnormal ones ties everywhere on chi-squared and goes to the emptiest, fold 1; a
        # normal image then belongs to fold 1 and an abnormal one to fold 0.
        counts = np.array([[3, 0], [0, 3], [1, 0], [0, 1]])
        folds = {tuple(splits._deal(counts, 2, seed).tolist()) for seed in range(20)}
        assert folds == {(0, 1, 1, 0), (1, 0, 0, 1)}

    def test_the_order_of_rows_does_not_move_a_patient(self, tmp_path):
        first, _, _ = run(tmp_path, PAIRS)
        again, _, _ = run(tmp_path, PAIRS[::-1].reset_index(drop=True))
        assert again[::-1].to_numpy().tolist() == first.to_numpy().tolist()

    def test_parts_of_the_whole_data_set_are_exact_to_a_few_images(self, tmp_path):
        # As uneven as the real one: over half of 30,805 patients have one image, some have 184.
        rng = np.random.default_rng(0)
        images = np.minimum(rng.zipf(1.75, 30_805), 184)
        sick = np.repeat(rng.beta(0.6, 0.7, 30_805), images)
        index = table(np.repeat(np.arange(30_805), images), rng.random(len(sick)) < sick)
        split, leakage, _ = run(tmp_path, index)
        size = split["split"].value_counts()
        for part, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
            assert abs(size[part] - share * len(index)) < NUM_FOLDS
        abnormal = index["any_abnormal"].groupby(split["split"]).mean()
        assert np.ptp(abnormal) < 0.001
        assert leakage["shared_train_test"] == 0

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1)), min_size=60, max_size=90),
        st.integers(0, 1000),
    )
    def test_parts_are_disjoint_whole_and_near_their_shares(self, tmp_path_factory, patients, seed):
        ids = [number for number, (count, _) in enumerate(patients) for _ in range(count)]
        abnormal = [kind for count, kind in patients for _ in range(count)]
        index = table(ids, abnormal)
        split, _, _ = run(tmp_path_factory.mktemp("split"), index, seed=seed)
        parts = split["split"].groupby(index["patient_id"]).nunique()
        assert (parts == 1).all()
        assert len(split) == len(index)
        share = (split["split"] == "train").mean()
        assert 0.55 < share < 0.85


class TestRows:
    def test_is_exactly_the_notebooks_two_calls(self, tmp_path, caplog):
        split, leakage, _ = run(tmp_path, PAIRS, "rows")
        rows, abnormal = np.arange(400), PAIRS["any_abnormal"]
        train, rest = train_test_split(rows, test_size=0.30, stratify=abnormal, random_state=42)
        val, test = train_test_split(rest, test_size=0.5, stratify=abnormal[rest], random_state=42)
        for part, expected in (("train", train), ("val", val), ("test", test)):
            assert np.flatnonzero(split["split"] == part).tolist() == sorted(expected)
        in_train = {row // 2 for row in train}
        share = np.mean([row // 2 in in_train for row in test])
        assert leakage["leaking_test_fraction"] == pytest.approx(share)
        assert leakage["shared_train_test"] > 0
        assert f"{100 * share:.1f} % of the test images are of a patient" in caplog.text

    def test_too_few_images(self, tmp_path):
        with pytest.raises(SplitError, match=r"too little data for split.method = rows: 2 images"):
            run(tmp_path, table([1, 2]), "rows")
        with pytest.raises(SplitError, match=r"6 images of each kind there is enough\. Use images"):
            run(tmp_path, table(np.arange(10)), "rows")

    def test_six_images_of_each_kind_are_enough(self, tmp_path):
        split, _, _ = run(tmp_path, table(np.arange(12)), "rows")
        assert set(split["split"]) == {"train", "val", "test"}


class TestOfficial:
    LISTS = np.where(np.arange(400) < 300, "train_val", "test")

    def test_keeps_the_lists_and_takes_val_by_patient(self, tmp_path):
        index = table(np.arange(400) // 2, official=self.LISTS)
        split, leakage, _ = run(tmp_path, index, "official")
        assert (split["split"][300:] == "test").all()
        assert (split["split"][:300] != "test").all()
        assert 300 // 8 - 1 <= leakage["num_val"] <= 300 // 8 + 1
        assert leakage["shared_train_val"] == 0

    def test_eight_patients_in_the_list_are_enough_and_seven_are_not(self, tmp_path):
        official = ["train_val"] * 8 + ["test"] * 2
        split, _, _ = run(tmp_path, table(range(10), [1] * 10, official), "official")
        assert split["split"].value_counts().to_dict() == {"train": 7, "test": 2, "val": 1}
        official[0] = "test"
        message = (
            r"Validation is drawn from train_val_list\.txt\. There is too little data for 8 folds "
            r"of patients: 7 images of 7 patients, .* At least 8 patients, and 8 images with a l"
        )
        with pytest.raises(SplitError, match=message):
            run(tmp_path, table(range(10), [1] * 10, official), "official")

    def test_rows_in_neither_list_are_in_the_ledger(self, tmp_path):
        official = self.LISTS.astype(object)
        official[[0, 350]] = None
        split, _, _ = run(tmp_path, table(np.arange(400) // 2, official=official), "official")
        assert len(split) == 398
        excluded = pd.read_parquet(tmp_path / "excluded.parquet")
        assert excluded["image"].tolist() == ["00000.png", "00350.png"]
        assert excluded["reason"].tolist() == ["not_in_official_lists"] * 2

    def test_missing_lists_name_the_files_and_the_place(self, tmp_path):
        message = r"train_val_list\.txt or test_list\.txt is missing.*Put both .*below data\.root"
        with pytest.raises(SplitError, match=message):
            run(tmp_path, PAIRS, "official")

    def test_lists_that_share_patients_are_refused(self, tmp_path):
        index = table(np.arange(400) % 200, official=self.LISTS)
        with pytest.raises(LeakageError, match=r"both train and test.* split\.method to patient\."):
            run(tmp_path, index, "official")


class TestLeakageCheck:
    FRAME = pd.DataFrame(
        {
            "patient_id": ["1", "1", "2", "3", "3", "4"],
            "split": ["train", "test", "val", "train", "test", "test"],
        }
    )

    def test_counts_shared_patients_and_the_share_of_leaking_test_images(self):
        leakage = check_leakage(self.FRAME, allowed=True)
        assert leakage["shared_train_test"] == 2
        assert leakage["shared_train_val"] == leakage["shared_val_test"] == 0
        assert leakage["num_patients_train"] == 2
        assert leakage["leaking_test_fraction"] == pytest.approx(2 / 3)

    def test_a_planted_leak_is_an_error_that_names_patients(self):
        with pytest.raises(LeakageError, match=r"2 patients are in both train and test.* 1, 3:"):
            check_leakage(self.FRAME)

    def test_a_split_that_breaks_its_promise_is_never_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(splits, "_folds", lambda frame, n, seed: np.arange(len(frame)) % n)
        with pytest.raises(LeakageError):
            run(tmp_path, PAIRS)
        assert not (tmp_path / "split.parquet").exists()


def test_a_part_left_empty_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "_folds", lambda frame, n, seed: np.zeros(len(frame), int))
    with pytest.raises(SplitError, match="leaves no image for val and test"):
        run(tmp_path, PAIRS)
