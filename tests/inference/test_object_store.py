"""A bundle and its images on an S3 server, over HTTP."""

import shutil

import pandas as pd
import pytest
from s3fs import S3FileSystem

import cxrmodel
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.command_line import main
from tests.servers.s3 import client_of, s3_server

BUCKET = "hospital"


@pytest.fixture(scope="module")
def s3(run, bundle):
    """A bucket with the bundle, the same as a zip archive, and three images."""
    with s3_server() as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        client = client_of(env)
        client.create_bucket(Bucket=BUCKET)
        for path in bundle.iterdir():
            client.upload_file(str(path), BUCKET, f"bundle/{path.name}")
        packed = shutil.make_archive(str(bundle.parent / "packed"), "zip", bundle)
        client.upload_file(packed, BUCKET, "bundle.zip")
        for path in images_of(run):
            client.upload_file(str(path), BUCKET, f"images/{path.name}")
        yield client
    S3FileSystem.clear_instance_cache()


def images_of(run):
    return sorted((run.root / "images").iterdir())[:3]


@pytest.mark.parametrize(
    "place",
    [
        *(f"s3://{BUCKET}/bundle", f"s3://{BUCKET}/bundle.zip"),
        *(f"simplecache::s3://{BUCKET}/bundle", f"simplecache::s3://{BUCKET}/bundle.zip"),
    ],
)
def test_a_model_is_loaded_from_there_and_scores_what_lies_there(s3, run, model, place):
    remote = cxrmodel.load(place, device="cpu")
    assert remote.bundle.digest == model.bundle.digest
    urls = [f"s3://{BUCKET}/images/{path.name}" for path in images_of(run)]
    scores = remote.predict(urls, gate=False)
    assert scores["image"].tolist() == urls
    assert set(scores["status"]) == {"ok"}
    local = model.predict(images_of(run), gate=False)
    pd.testing.assert_frame_equal(scores.drop(columns="image"), local.drop(columns="image"))


def test_the_command_line_takes_both_from_there(s3, run, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    url = f"s3://{BUCKET}/images/{images_of(run)[0].name}"
    gone = f"s3://{BUCKET}/images/gone.png"
    main(["predict", f"s3://{BUCKET}/bundle", url, gone, "--no-gate", "--out", str(out)])
    assert "2 images (ok 1, unreadable 1)" in capsys.readouterr().out
    assert pd.read_parquet(out)["image"].tolist() == [url, gone]


def test_a_tampered_byte_is_refused(s3, bundle):
    for path in bundle.iterdir():
        content = bytearray(path.read_bytes())
        if path.name == "model.safetensors":
            content[len(content) // 2] ^= 1
        s3.put_object(Bucket=BUCKET, Key=f"tampered/{path.name}", Body=bytes(content))
    with pytest.raises(DamagedArtifactError, match=r"model\.safetensors"):
        cxrmodel.load(f"s3://{BUCKET}/tampered", device="cpu")


@pytest.mark.parametrize("place", [f"{BUCKET}/nowhere", "no-such-bucket/bundle"])
def test_a_missing_bundle_is_a_sentence(s3, capsys, place):
    with pytest.raises(SystemExit) as stopped:
        main(["info", f"s3://{place}"])
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"cxrmodel info: s3://{place} ")
