"""Names for bundles: one winner, a whole history, and a way back."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.storage.aliases import AliasChangedError, Aliases, find_bundle
from tests.servers.s3 import client_of, s3_server

NUM_WRITERS = 6


@pytest.fixture(params=["folder", "moto"])
def root(request, tmp_path, monkeypatch):
    """A store in a folder and in a bucket."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        return
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        client_of(env).create_bucket(Bucket="models")
        S3FileSystem.clear_instance_cache()
        yield f"s3://models/{uuid.uuid4().hex}"  # the server forgets nothing
    S3FileSystem.clear_instance_cache()


def give(root, digest, instead_of, name="champion"):
    bundle = f"{root}/bundle/{digest}"
    return Aliases(root).give(
        name, bundle, digest, who="ann", why=f"{digest} is better", instead_of=instead_of
    )


def test_champion_previous_and_back(root):
    give(root, "a", None)
    assert find_bundle("champion", root) == f"{root}/bundle/a"
    give(root, "b", "a")
    assert Aliases(root).find("previous") == f"{root}/bundle/a"
    assert Aliases(root).roll_back(who="bob", why="too many alerts").digest == "a"
    assert Aliases(root).find("previous") == f"{root}/bundle/b"
    history = Aliases(root).history("champion")
    assert [(entry.bundle, entry.who) for entry in history] == [
        ("bundle/a", "ann"), ("bundle/b", "ann"), ("bundle/a", "bob"),
    ]  # fmt: skip
    assert history[2].evidence == {"rolled_back": "b"}
    assert set(Aliases(root).in_use()) == {"bundle/a", "bundle/b"}


def test_of_promotions_at_once_one_wins_and_the_history_is_whole(root):
    give(root, "a", None)

    def promote(number):
        try:
            return give(root, f"b{number}", "a").digest
        except AliasChangedError as error:
            assert "champion of" in str(error)
            return None

    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        won = [digest for digest in pool.map(promote, range(NUM_WRITERS)) if digest]
    assert [entry.digest for entry in Aliases(root).history("champion")] == ["a", *won]
    assert len(won) == 1


@pytest.mark.integration
def test_ceph_too_lets_one_promotion_win(bucket):
    test_of_promotions_at_once_one_wins_and_the_history_is_whole(f"s3://{bucket}/cxr")


def test_of_first_promotions_at_once_one_wins(root):
    def promote(number):
        try:
            return give(root, f"b{number}", None).digest
        except AliasChangedError:
            return None

    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        won = [digest for digest in pool.map(promote, range(NUM_WRITERS)) if digest]
    assert [entry.digest for entry in Aliases(root).history("champion")] == won
    assert len(won) == 1


def test_a_copied_store_keeps_its_aliases(tmp_path):
    give(str(tmp_path / "store"), "a", None)
    give(str(tmp_path / "store"), "b", None, name="candidate")
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = str(tmp_path / "moved")
    assert Aliases(moved).find("champion") == f"{moved}/bundle/a"
    assert sorted(Aliases(moved).names()) == ["candidate", "champion"]


def test_a_bundle_elsewhere_is_named_by_its_whole_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    aliases = Aliases(str(tmp_path / "store"))
    for name, place in (
        ("here", "models/a"),
        ("there", "s3://models/a"),
        ("zipped", "zip::/a.zip"),
    ):
        aliases.give(name, place, "a", who="ann", why="first", instead_of=None)
    assert aliases.find("here") == str(tmp_path / "models/a")
    assert aliases.find("there") == "s3://models/a"
    assert aliases.find("zipped") == "zip::/a.zip"


def test_a_word_is_an_alias_first_and_then_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = str(tmp_path / "store")
    with pytest.raises(StoreError, match=r"has no alias champion \(it has none\), and there is no"):
        find_bundle("champion", root)
    Path("champion").mkdir()
    assert find_bundle("champion", root) == "champion"
    give(root, "a", None)
    assert find_bundle("champion", root) == f"{root}/bundle/a"
    assert find_bundle("./champion", root) == "./champion"
    with pytest.raises(StoreError, match=r"no alias champoin \(those it has: champion\)"):
        find_bundle("champoin", root)


def test_bad_input_is_a_sentence(tmp_path):
    root = str(tmp_path)
    with pytest.raises(ValueError, match="is no alias: it begins with a lower-case letter"):
        give(root, "a", None, name="../x")
    with pytest.raises(ValueError, match="previous is what was champion before"):
        give(root, "a", None, name="previous")
    with pytest.raises(StoreError, match="cannot be rolled back: no bundle has it"):
        Aliases(root).roll_back(who="ann", why="")
    give(root, "a", None)
    with pytest.raises(StoreError, match="only one bundle has ever had it"):
        Aliases(root).roll_back(who="ann", why="")
    whole = (tmp_path / "_aliases/champion.json").read_text()
    for text in (
        "{",
        "[" * 100_000,
        '{"format": "cxrmodel-alias", "history": []}',
        "[]",
        whole.replace('"digest": "a"', '"digest": 7'),
        whole.replace('"evidence": {}', '"evidence": []'),
    ):
        (tmp_path / "_aliases/champion.json").write_text(text)
        with pytest.raises(DamagedArtifactError, match=r"is not an alias that this version reads"):
            Aliases(root).find("champion")
