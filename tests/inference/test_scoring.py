"""Scoring what is new: each image once, whatever happens in between."""

import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from s3fs import S3FileSystem

from cxrmodel.data.files.listing import ListedFile
from cxrmodel.data.files.root import Root
from cxrmodel.errors import DamagedArtifactError, DataError, StoreError
from cxrmodel.inference import scoring
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.predictor import load
from cxrmodel.inference.scoring import cut_shards, plan_scoring, remove_outdated, score_shard
from tests.data.images.image_bytes import dicom
from tests.servers.fault_proxy import FaultProxy
from tests.servers.s3 import client_of, s3_server

FORKS = multiprocessing.get_context("fork")  # the imports of a new process take longer than a run
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove"}


@pytest.fixture
def images(run, tmp_path) -> Path:
    """Forty images in a folder of their own, for a test to change."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((run.root / "images").glob("*.png"))[:40]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Shards of about eight images, cut as the large ones are."""
    set_shards(monkeypatch, 4, 8, 16)


def set_shards(monkeypatch, *sizes):
    for name, size in zip(("MIN_SHARD", "MEAN_SHARD", "MAX_SHARD"), sizes, strict=True):
        monkeypatch.setattr(scoring, name, size)


def score(bundle, root, out) -> int:
    """Score what is new as the flow does; return how many images there were."""
    plan = plan_scoring(str(bundle), str(root), str(out))
    for shard in plan.shards:
        score_shard(plan, shard, device="cpu")
    remove_outdated(plan)
    return plan.num_new


def scores(out) -> pd.DataFrame:
    """Return all rows of the one bundle that is in an output, as a user reads them."""
    (folder,) = Path(out).iterdir()
    return pd.read_parquet(folder).sort_values("image", ignore_index=True)


def parts(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(out).glob("*/*.parquet")}


def listing(num):
    return [ListedFile(f"images/{number:08d}.png", 9, "v1") for number in range(num)]


def test_the_rows_are_those_of_predict(bundle, images, tmp_path):
    assert score(bundle, images, tmp_path / "out") == 40
    rows = scores(tmp_path / "out")
    expected = load(bundle, device="cpu").predict(images)
    assert len(parts(tmp_path / "out")) > 2
    pd.testing.assert_frame_equal(
        rows.drop(columns=["version", "bundle"]), expected, rtol=1e-5, atol=1e-5
    )
    assert set(rows["bundle"]) == {load(bundle).bundle.digest}


def test_nothing_new_is_nothing_to_do(bundle, images, tmp_path):
    score(bundle, images, tmp_path / "out")
    before = parts(tmp_path / "out")
    plan = plan_scoring(str(bundle), str(images), str(tmp_path / "out"))
    assert (plan.num_listed, plan.num_new, plan.has_outdated) == (40, 0, False)
    assert parts(tmp_path / "out") == before


def test_only_new_images_are_read_from_a_bucket(bundle, run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "MEAN_SHARD", 64)
    paths = sorted((run.root / "images").glob("*.png"))[:70]
    with s3_server() as env:
        client = client_of(env)
        client.create_bucket(Bucket="films")
        for path in paths[:50]:
            client.put_object(Bucket="films", Key=f"in/{path.name}", Body=path.read_bytes())
        proxy = FaultProxy(env["AWS_ENDPOINT_URL"])
        for name, value in {**env, "AWS_ENDPOINT_URL": proxy.endpoint}.items():
            monkeypatch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        root, out = "s3://films/in", "s3://films/out"
        assert score(bundle, root, out) == 50
        for path in paths[50:]:
            client.put_object(Bucket="films", Key=f"in/{path.name}", Body=path.read_bytes())
        proxy.reset_counts()
        assert score(bundle, root, out) == 20
        bodies = [line for line in proxy.requests if line.startswith("GET /films/in/")]
        assert len(bodies) == 20
        assert sum(line.startswith("HEAD /films/in/") for line in proxy.requests) == 0
        plan = plan_scoring(str(bundle), root, out)
        rows = pd.read_parquet(f"{out}/{plan.digest[:16]}")
        assert sorted(rows["image"]) == [f"{root}/{path.name}" for path in paths]
        proxy.add("reply", "GET /films/in/", status=403, code="AccessDenied")
        client.put_object(Bucket="films", Key="in/more.png", Body=paths[0].read_bytes())
        with pytest.raises(
            PermissionError, match=r"s3:GetObject on s3://films/in/more.png was ref"
        ):
            score(bundle, root, out)
        proxy.add("reply", "LIST /films", status=403, code="AccessDenied")
        with pytest.raises(DataError, match=r"Cannot list s3://films/in: access is denied"):
            score(bundle, root, out)
        proxy.stop()
    S3FileSystem.clear_instance_cache()


def test_a_replaced_image_has_one_row_the_new_one(bundle, images, tmp_path):
    score(bundle, images, tmp_path / "out")
    first, second = sorted(images.iterdir())[:2]
    shutil.copy(second, first)
    assert score(bundle, images, tmp_path / "out") == 1
    rows = scores(tmp_path / "out")
    assert len(rows) == 40
    assert rows["mu_00"][0] == pytest.approx(rows["mu_00"][1], abs=1e-5)
    assert score(bundle, images, tmp_path / "out") == 0


def test_an_image_replaced_between_listing_and_reading_is_scored_by_the_next_run(
    bundle, images, tmp_path
):
    plan = plan_scoring(str(bundle), str(images), str(tmp_path / "out"))
    first, second = sorted(images.iterdir())[:2]
    shutil.copy(second, first)
    for shard in plan.shards:
        score_shard(plan, shard, device="cpu")
    assert list(scores(tmp_path / "out")["status"] == "replaced") == [True] + 39 * [False]
    assert score(bundle, images, tmp_path / "out") == 1
    assert list(scores(tmp_path / "out")["status"] == "replaced") == 40 * [False]


def test_two_scorers_that_saw_different_listings_end_with_a_row_per_image(bundle, images, tmp_path):
    late = sorted(images.iterdir())[5]
    late.rename(tmp_path / late.name)
    one = plan_scoring(str(bundle), str(images), str(tmp_path / "out"))
    (tmp_path / late.name).rename(late)
    two = plan_scoring(str(bundle), str(images), str(tmp_path / "out"))
    shared = {shard.key for shard in one.shards} & {shard.key for shard in two.shards}
    assert len(shared) >= len(one.shards) - 2
    for plan in (one, two):
        for shard in plan.shards:
            score_shard(plan, shard, device="cpu")
    assert len(scores(tmp_path / "out")) > 40
    assert remove_outdated(one) > 0
    assert remove_outdated(two) == 0
    assert list(scores(tmp_path / "out")["image"]) == sorted(map(str, images.iterdir()))


def test_a_shard_that_another_run_has_finished_is_not_scored_again(bundle, images, tmp_path):
    plan = plan_scoring(str(bundle), str(images), str(tmp_path / "out"))
    assert sum(score_shard(plan, plan.shards[0], device="cpu").values()) > 0
    assert score_shard(plan, plan.shards[0], device="cpu") == {}


def test_shards_stay_where_files_are_added(monkeypatch):
    set_shards(monkeypatch, 512, 1024, 2048)
    files = listing(50_000)
    before = list(cut_shards(files))
    assert 900 < np.mean([len(shard) for shard in before]) < 1150
    assert all(512 <= len(shard) <= 2048 for shard in before[:-1])
    rest = [file for shard in before[:20] + before[23:] for file in shard]
    assert list(cut_shards(rest)) == before[:20] + before[23:]
    added = sorted([*files, ListedFile("images/00020000b.png", 9, "v1")])
    assert sum(shard not in before for shard in cut_shards(added)) <= 3


def test_a_new_bundle_scores_beside_the_old_one(bundle, run, images, tmp_path):
    score(bundle, images, tmp_path / "out")
    other = shutil.copytree(bundle, tmp_path / "other")
    (other / "README.md").write_text("another card")
    write_checksums(other)
    assert score(other, images, tmp_path / "out") == 40
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert score(bundle, images, tmp_path / "out") == 0


def score_and_die(bundle, root, out, kill_at):
    """Score in a fork that dies at one of its file operations below the output (0: at none)."""
    torch.set_num_threads(1)  # those of the parent are not in a fork; others give other last bits
    count = 0

    def watch(event, arguments):
        nonlocal count
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(out)):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    score(bundle, root, out)


@pytest.mark.parametrize("kill_every", [3])
def test_killed_again_and_again_it_ends_with_the_same_bytes(bundle, images, tmp_path, kill_every):
    def exitcode(out, kill_at):
        process = FORKS.Process(target=score_and_die, args=(bundle, images, out, kill_at))
        process.start()
        process.join(120)
        return process.exitcode

    assert exitcode(tmp_path / "whole", 0) == 0
    kills = 0
    while exit_code := exitcode(tmp_path / "killed", kill_every + 14 * kills):
        assert exit_code == -signal.SIGKILL
        kills += 1
    assert kills >= 2
    assert parts(tmp_path / "killed") == parts(tmp_path / "whole")


def test_bad_input_is_a_sentence_with_the_remedy(bundle, images, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DamagedArtifactError, match=r"There is nothing at|is not a whole bundle"):
        score(tmp_path / "nowhere", images, out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"There are no images in .*Set data.root to"):
        score(bundle, tmp_path / "empty", out)
    with pytest.raises(DataError, match=r"Cannot list"):
        score(bundle, tmp_path / "nowhere", out)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"out: cannot write in .*/file: File exists. Choose"):
        score(bundle, images, tmp_path / "file")
    score(bundle, images, out)
    (folder,) = out.iterdir()
    with pytest.raises(StoreError, match=r"holds the scores of one bundle itself. Give the folder"):
        score(bundle, images, folder)
    part = next(folder.glob("*.parquet"))
    shutil.copy(part, folder / "mine.parquet")
    with pytest.raises(DamagedArtifactError, match=r"mine.parquet has no manifest"):
        score(bundle, images, out)
    (folder / "mine.parquet").unlink()
    content = part.read_bytes()
    part.write_bytes(content[:99])
    with pytest.raises(DamagedArtifactError, match=r"has 99 bytes instead of .* Delete it"):
        score(bundle, images, out)
    part.unlink()
    assert score(bundle, images, out) > 0
    assert part.read_bytes() == content
    manifest = next((folder / "_manifests").iterdir())
    manifest.write_text(manifest.read_text().replace('"bundle": "', '"bundle": "0000'))
    with pytest.raises(StoreError, match=r"holds scores of bundle 0000"):
        score(bundle, images, out)
    manifest.write_text("{")
    with pytest.raises(DamagedArtifactError, match=r"cannot be read: .* Delete it and"):
        score(bundle, images, out)


def test_dicom_without_an_ending_is_scored_and_names_that_look_the_same_have_one_row(
    bundle, images, tmp_path
):
    shutil.rmtree(images)
    images.mkdir()
    (images / "IM0001").write_bytes(dicom(np.arange(4096, dtype=np.uint8).reshape(64, 64)))
    (images / "NOTES").write_bytes(b"no image")
    for byte in (b"\xe4", b"\xf6"):
        Path(os.fsdecode(os.fsencode(images) + b"/caf" + byte + b".png")).write_bytes(b"x")
    assert score(bundle, images, tmp_path / "out") == 2
    rows = scores(tmp_path / "out").set_index("image")
    assert list(rows.index) == [f"{images}/IM0001", f"{images}/caf\ufffd.png"]
    assert rows["status"].iloc[1] == "unreadable"
    assert score(bundle, images, tmp_path / "out") == 0


def test_an_image_that_comes_cut_once_is_scored(bundle, images, tmp_path, monkeypatch):
    read, cut = Root.read_image, []

    def read_image(self, uri, limit, *, version=""):
        data = read(self, uri, limit, version=version)
        if uri not in cut:
            cut.append(uri)
            return data[:-9]
        return data

    monkeypatch.setattr(Root, "read_image", read_image)
    assert score(bundle, images, tmp_path / "out") == 40
    assert len(cut) == 40
    assert set(scores(tmp_path / "out")["status"]) <= {"ok", "inverted", "not_a_chest_image"}


def test_an_image_that_cannot_be_scored_has_its_row(bundle, images, tmp_path):
    (images / "empty.png").write_bytes(b"")
    (images / "text.png").write_bytes(b"not an image")
    score(bundle, images, tmp_path / "out")
    rows = scores(tmp_path / "out").set_index("image")
    assert rows.loc[str(images / "text.png"), "status"] == "unsupported_image"
    assert pd.isna(rows.loc[str(images / "empty.png"), "l1"])
    assert len(rows) == 42
