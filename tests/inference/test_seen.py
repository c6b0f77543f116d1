"""Images and patients that a bundle was made with are told again."""

import numpy as np
import pandas as pd
import pytest

from cxrmodel.errors import DataError
from cxrmodel.evaluation.perceptual_hash import hash_images
from cxrmodel.evaluation.resolution import to_unit
from cxrmodel.inference.bundle import TEST, TRAIN, read_bundle, write_checksums
from cxrmodel.inference.seen import SeenImages, refuse_overlap


@pytest.fixture(scope="module")
def images(run):
    """The images of a run: part, patient, checksum and pixels."""
    table = pd.read_parquet(run.stage("split") / "split.parquet")
    for stage, columns in (("index", ["patient_id"]), ("images", ["crc32"])):
        known = pd.read_parquet(run.stage(stage) / f"{stage}.parquet", columns=["image", *columns])
        table = table.merge(known, on="image")
    return table


@pytest.fixture(scope="module")
def pixels(run, images):
    return run.pixels.read(run.pixels.rows_of(images["image"].tolist()))


@pytest.fixture(scope="module")
def seen(bundle):
    return SeenImages(read_bundle(bundle))


@pytest.fixture
def before(bundle, tmp_path):
    """A bundle as they were before."""
    return as_before(bundle, tmp_path / "before")


def as_before(bundle, target):
    target.mkdir()
    for path in bundle.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    (target / TEST).unlink()
    train = pd.read_parquet(target / TRAIN).query("split == 'train'")[["crc32", "patient"]]
    train.to_parquet(target / TRAIN, index=False)
    write_checksums(target)
    return target


def test_all_images_and_patients_of_train_and_validation_are_known(seen, images, pixels):
    known = (images["split"] != "test").to_numpy()
    hashes = hash_images(to_unit(pixels))
    crc32 = images["crc32"].to_numpy(np.int64)
    np.testing.assert_array_equal(seen.pixels(crc32, hashes), known)
    np.testing.assert_array_equal(seen.near(hashes), known)
    np.testing.assert_array_equal(seen.patients(images["patient_id"]), known)


def test_a_copy_with_other_pixels_is_near(seen, images, pixels):
    darker = (pixels * 0.9).astype(np.uint8)
    known = (images["split"] != "test").to_numpy()
    np.testing.assert_array_equal(seen.near(hash_images(to_unit(darker))), known)


def test_equal_checksums_of_other_images_are_told_apart(seen, images, pixels):
    crc32 = images["crc32"].to_numpy(np.int64)
    others = hash_images(to_unit(np.random.default_rng(0).integers(0, 255, pixels.shape, np.uint8)))
    assert not seen.pixels(crc32, others).any()
    assert seen.pixels(crc32).any()  # without fingerprints a checksum has to do


def test_a_bundle_from_before_knows_train_images_by_their_checksums(before, images):
    bundle = read_bundle(before)
    seen = SeenImages(bundle)
    assert bundle.test is None
    assert not seen.is_complete
    known = (images["split"] == "train").to_numpy()
    np.testing.assert_array_equal(seen.pixels(images["crc32"].to_numpy(np.int64)), known)
    assert not seen.near(np.zeros((3, 64), np.uint8)).any()


def test_one_image_is_refused_with_its_name_and_the_way_out():
    names = pd.Series(["a.png", "b.png", "c.png"])
    found = pd.DataFrame({"pixels": [False, True, False], "near": False, "patients": False})
    with pytest.raises(DataError) as caught:
        refuse_overlap(names, found, ())
    text = str(caught.value)
    assert "pixels: 1 of 3 images have the pixels of a train or validation image" in text
    for part in ("first b.png", "--allow_overlap pixels", "--leave_out_overlap"):
        assert part in text
    refuse_overlap(names, found, ("pixels",))
