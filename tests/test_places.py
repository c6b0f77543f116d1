"""Folders and URLs: one form for each, and a clear refusal of what is neither."""

from pathlib import Path

import pytest

from cxrmodel.places import absolute, lies_in, normal_folder, normal_place, normal_store


@pytest.fixture(autouse=True)
def _home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    "written, place",
    [
        ("/data/store", "/data/store"),
        ("/data//store/", "/data/store"),
        ("outputs/store/", "outputs/store"),
        ("~/cxr", "/home/me/cxr"),
        ("~", "/home/me"),
        ("file:///data/store/", "/data/store"),
        ("file://localhost/data", "/data"),
        ("file:/data/store", "/data/store"),
        ("file://~/cxr", "/home/me/cxr"),
        ("FILE:///data", "/data"),
        ("local:///data", "/data"),
        ("file:outputs", "outputs"),
        ("./~/cxr", "./~/cxr"),
        ("./phantom/", "./phantom"),
        ("./s3:/bucket", "./s3:/bucket"),
        ("../x", "../x"),
        ("a b/50%/\u00fc", "a b/50%/\u00fc"),
        ("/data/a@b", "/data/a@b"),
        ("s3://bucket/films/", "s3://bucket/films"),
        ("S3://Bucket/Films", "s3://Bucket/Films"),
        ("https://host/films/", "https://host/films/"),
        ("memory://", "memory://"),
        ("zip::~/films.zip", "zip::/home/me/films.zip"),
        ("zip://inner::file:///films.zip", "zip://inner::/films.zip"),
        ("tar::s3://bucket/films.tar", "tar::s3://bucket/films.tar"),
    ],
)
def test_a_place_has_one_form_which_is_its_own(written, place):
    assert normal_place(written) == place
    assert normal_place(place) == place


@pytest.mark.parametrize(
    "written, message",
    [
        ("", "It is empty"),
        ("  ", "It is empty"),
        ("file://", "It is empty"),
        ("/data/films ", "It begins or ends with a blank or a line break. Leave that out"),
        (" s3://bucket/films", "It begins or ends with a blank or a line break. Leave that out"),
        ("/data/films\n", "It begins or ends with a blank or a line break. Leave that out"),
        ("s3://", "It names no bucket or machine: one follows s3://"),
        ("s3:///films", "It names no bucket or machine: one follows s3://"),
        ("zip::https://", "It names no bucket or machine: one follows https://"),
        ("zip://", "It names no archive: one follows ::, as in zip::/data/images.zip"),
        ("/data/\udcfc", "It has a character that is not UTF-8"),
        ("C:\\films", "It is a path of Windows"),
        ("C:/films", "It is a path of Windows"),
        ("\\\\server\\films", "It is a path of Windows"),
        ("s3:/bucket/films", "It lacks a slash: a URL begins with s3://"),
        ("file://data/store", "It names a machine 'data': .* as in file:///data/store"),
        ("htps://host/films", "'htps' is no protocol that is known here; did you mean https?"),
        ("zipp::/films.zip", "'zipp' is no protocol that is known here; did you mean zip?"),
        ("s3://me:hunter2@bucket/x", "must not carry credentials, and it does before the '@'"),
        ("zip::https://me:hunter2@host/x.zip", "must not carry credentials"),
        ("https://host/x.csv?X-Amz-Signature=hunter2", "it does in X-Amz-Signature=…"),
        ("https://host/x.csv?sv=1&sig=hunter2", "it does in sig=…"),
    ],
)
def test_what_is_no_place_is_refused_and_no_secret_repeated(written, message):
    with pytest.raises(ValueError, match=message) as caught:
        normal_place(written)
    assert "hunter2" not in str(caught.value)


def test_a_store_can_be_written_to_and_scratch_is_a_folder():
    for place in ("zip::/store.zip", "simplecache::s3://bucket"):
        with pytest.raises(ValueError, match="cannot be written to"):
            normal_store(place)
    with pytest.raises(ValueError, match="can only be read"):
        normal_store("https://host/store")
    with pytest.raises(ValueError, match="It is a URL, and has to be a folder"):
        normal_folder("s3://bucket/scratch")
    assert normal_folder("~/scratch/") == "/home/me/scratch"


def test_a_relative_folder_is_resolved_wherever_it_stands():
    base = Path("/app")
    assert absolute("outputs/store", base) == "/app/outputs/store"
    assert absolute("zip::films.zip", base) == "zip::/app/films.zip"
    for place in ("/data", "s3://bucket", "zip::/films.zip", "tar::s3://bucket/films.tar"):
        assert absolute(place, base) == place


def test_what_lies_in_what(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert lies_in("data/store", str(tmp_path))
    assert lies_in("data", "data")
    assert lies_in("link/store", "data")
    assert not lies_in("data", "data/store")
    assert not lies_in("database", "data")
    assert lies_in("s3://bucket/films/store", "s3://bucket/films")
    assert not lies_in("s3://bucket/films-store", "s3://bucket/films")
    assert not lies_in("s3://bucket/films", "films")
