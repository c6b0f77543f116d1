"""Publication, verification and retrieval of artifacts."""

import json
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import fsspec
import pytest
from botocore.exceptions import NoCredentialsError

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.storage import retry
from cxrmodel.storage.layout import MANIFEST_FILE
from cxrmodel.storage.store import Artifact, Store


@pytest.fixture(params=["folder", "remote"])
def store(request, tmp_path):
    root = str(tmp_path / "store") if request.param == "folder" else f"memory://{tmp_path.name}"
    return Store(root, tmp_path / "scratch")


def publish(store: Store, text: str = "hello", key: str = "k" * 64) -> Artifact:
    with store.write("index", key) as draft:
        (draft.directory / "a.txt").write_text(text)
        (draft.directory / "figures").mkdir()
        (draft.directory / "figures" / "b.txt").write_text("b")
        return draft.commit({"num_images": 2}, {"code": "abc"}, seconds=1.5)


def delete(store: Store, artifact: Artifact, name: str) -> None:
    fsspec.open(store.uri(artifact, name)).fs.rm(store.uri(artifact, name))


def test_published_files_come_back(store):
    artifact = publish(store)
    folder = store.directory(artifact)
    assert (folder / "a.txt").read_text() == "hello"
    assert (folder / "figures" / "b.txt").read_text() == "b"
    assert store.problems(artifact) == []


def test_manifest_holds_the_reference_and_its_provenance(store):
    artifact = publish(store)
    with fsspec.open(store.uri(artifact, MANIFEST_FILE)) as stream:
        manifest = json.load(stream)
    assert manifest.pop("provenance") == {"code": "abc"}
    assert Artifact.model_validate(manifest) == artifact
    assert artifact.summary == {"num_images": 2}
    assert artifact.seconds == 1.5


def test_fingerprint_covers_content_only(store):
    first = publish(store, key="a" * 64)
    second = publish(store, key="b" * 64)
    other = publish(store, text="hullo", key="a" * 64)
    assert first.key != second.key
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != other.fingerprint


def test_same_key_with_other_content_never_mixes(store):
    first, second = publish(store, "one"), publish(store, "two")
    assert (store.directory(first) / "a.txt").read_text() == "one"
    assert (store.directory(second) / "a.txt").read_text() == "two"


def test_only_narrows_the_reference(store):
    artifact = publish(store)
    narrowed = artifact.only("a.txt")
    assert set(narrowed.files) == {"a.txt"}
    assert narrowed.fingerprint != artifact.fingerprint
    assert store.problems(narrowed) == []


@pytest.mark.parametrize("name", ["a.txt", MANIFEST_FILE])
def test_a_deleted_file_is_a_problem_named(store, name):
    artifact = publish(store)
    delete(store, artifact, name)
    assert store.problems(artifact) == [f"{store.uri(artifact, name)} is missing"]


def test_publishing_again_mends_a_damaged_artifact(store):
    artifact = publish(store)
    with fsspec.open(store.uri(artifact, "a.txt"), "wb") as stream:
        stream.write(b"he")
    assert store.problems(artifact) == [f"{store.uri(artifact, 'a.txt')} has 2 bytes instead of 5"]
    assert publish(store) == artifact
    assert store.problems(artifact) == []
    assert (store.directory(artifact) / "a.txt").read_text() == "hello"


def test_a_draft_that_fails_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.write("index", "k" * 64) as draft:
        (draft.directory / "a.txt").write_text("half")
        raise RuntimeError
    assert not any((store.scratch / "drafts").iterdir())
    assert draft.artifact is None


def test_many_publishers_of_one_key_all_succeed(store):
    with ThreadPoolExecutor(4) as pool:
        artifacts = list(pool.map(lambda _: publish(store), range(8)))
    assert len({artifact.key for artifact in artifacts}) == 1
    assert store.problems(artifacts[0]) == []
    assert not any((store.scratch / "drafts").iterdir())


def test_a_truncated_local_file_is_refused_by_name(tmp_path):
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    artifact = publish(store)
    path = store.directory(artifact) / "a.txt"
    path.write_text("he")
    with pytest.raises(DamagedArtifactError, match=r"a\.txt has 2 bytes instead of 5.*Delete"):
        store.directory(artifact)


def test_a_corrupt_remote_file_of_the_right_size_is_refused(tmp_path):
    store = Store("memory://corrupt", tmp_path / "scratch")
    artifact = publish(store)
    with fsspec.open(store.uri(artifact, "a.txt"), "wb") as stream:
        stream.write(b"hellO")
    with pytest.raises(DamagedArtifactError, match=r"a\.txt does not have the checksum"):
        store.directory(artifact)


def test_a_store_can_be_moved(tmp_path):
    artifact = publish(Store(str(tmp_path / "store"), tmp_path / "scratch"))
    (tmp_path / "store").rename(tmp_path / "moved")
    moved = Store(str(tmp_path / "moved"), tmp_path / "scratch")
    assert moved.problems(artifact) == []
    assert (moved.directory(artifact) / "a.txt").read_text() == "hello"


@pytest.mark.parametrize("root", ["gopher://x/store", "zip://x/store"])
def test_a_root_that_no_file_system_opens_says_so(root, tmp_path):
    with pytest.raises(StoreError, match=rf"store\.root = {root} cannot be opened: .*s3://bucket"):
        Store(root, tmp_path)


def test_whatever_a_file_system_raises_says_what_was_done_where(tmp_path, monkeypatch):
    store = Store("memory://store", tmp_path)
    folder = store.remote_folder("copies")
    local = tmp_path / "x"
    local.touch()
    for error, kind, message in (
        (KeyError("ETag"), StoreError, "failed: KeyError: 'ETag'"),
        (NoCredentialsError(), StoreError, "Unable to locate credentials.*Look at store.root"),
        (OSError("odd"), OSError, "failed: odd"),
        (ConnectionResetError("away"), ConnectionError, "failed: away"),
        (PermissionError("no"), PermissionError, "was refused: no"),
        (FileNotFoundError("no bucket"), FileNotFoundError, "it is not there .no bucket"),
    ):
        monkeypatch.setattr(retry, "PATIENCE_S", 0)
        monkeypatch.setattr(store._fs, "put_file", Mock(side_effect=error))
        with pytest.raises(kind, match=rf"Writing memory:///?store/copies/x.*{message}"):
            folder.put(local, "x")
        with pytest.raises(kind, match=rf"Writing memory:///?store/copies/x.*{message}"):
            store._remote.put(local, f"{store._root}/copies/x")
