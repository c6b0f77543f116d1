"""`python -m deployments gc`: removes what nothing refers to, and never anything else."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.serializers import JSONSerializer

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.storage.aliases import Aliases
from cxrmodel.storage.store import Store
from deployments import garbage
from deployments.__main__ import main
from tests.servers.s3 import client_of, s3_server

OLD_DAYS = 40
RECORD_KEY = "vae-" + "a" * 64


def publish(store: Store, content: str, stage: str = "vae", key: str = "0" * 16):
    with store.write(stage, key) as draft:
        (draft.directory / "weights.bin").write_text(content)
        return draft.commit({}, {})


def record(root: Path, artifact, key: str = RECORD_KEY) -> Path:
    """A record as Prefect itself writes it."""
    storage = LocalFileSystem(basepath=str(root / "_results"))
    records = ResultStore(result_storage=storage, serializer=JSONSerializer())
    records.write(obj=artifact, key=key)
    return root / "_results" / key


def age(folder: Path, days: float = OLD_DAYS) -> None:
    then = time.time() - days * 86400
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (then, then))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


@pytest.fixture
def folders(store):
    """An old artifact with a record, and an old one whose record another has replaced."""
    live, dead = publish(store, "live"), publish(store, "dead")
    record(Path(store.root), dead)
    record(Path(store.root), live)
    age(Path(store.root))
    return Path(store.uri(live)), Path(store.uri(dead))


def collect(store: Store, *arguments: str) -> list[str]:
    return list(garbage.command([f"--store.root={store.root}", *arguments]))


def test_what_no_record_refers_to_is_removed_and_the_rest_stays(store, folders):
    live, dead = folders
    lines = collect(store)
    assert lines[0].startswith(f"removed {dead}  0.0 MiB, {OLD_DAYS} days old")
    assert len(lines) == 2
    assert not dead.exists()
    assert (live / "manifest.json").is_file()
    assert collect(store) == ["removed 0.0 MiB in all"]


def test_a_dry_run_removes_nothing(store, folders):
    assert collect(store, "--dry-run")[0].startswith(f"would remove {folders[1]}")
    assert all((folder / "manifest.json").is_file() for folder in folders)


def test_the_young_stay_for_a_run_may_be_about_to_record_them(store, folders):
    age(folders[1], days=20)
    collect(store)
    assert folders[1].exists()
    collect(store, "--older-than-days=10")
    assert not folders[1].exists()


def test_a_bundle_that_an_alias_names_or_would_get_back_stays(store):
    bundles = [publish(store, content, "bundle") for content in ("first", "second", "third")]
    aliases, last = Aliases(store.root), None
    for bundle in bundles:
        aliases.give("champion", store.uri(bundle), bundle.key, who="ann", why="", instead_of=last)
        last = bundle.key
    record(Path(store.root), publish(store, "live"))
    age(Path(store.root))
    assert collect(store)[0].startswith(f"removed {store.uri(bundles[0])}")
    assert [Path(store.uri(bundle)).exists() for bundle in bundles] == [False, True, True]
    (Path(store.root) / "_aliases/champion.json").write_text("{")
    with pytest.raises(DamagedArtifactError, match="is not an alias that this version reads"):
        collect(store)


def test_a_folder_with_one_young_file_stays(store, folders):
    (folders[1] / "weights.bin").touch()
    collect(store)
    assert folders[1].exists()


def test_an_upload_that_broke_off_is_removed(store, folders):
    live, _ = folders
    half = live.parent / ("b" * 16 + "-" + "c" * 16)
    half.mkdir()
    (half / "weights.bin").write_text("half")
    partial = live / "weights.bin.123.partial"
    partial.write_text("half")
    age(live.parent)
    collect(store)
    assert not half.exists()
    assert not partial.exists()
    assert (live / "weights.bin").is_file()


def test_checkpoints_of_an_abandoned_training_are_removed_and_of_a_recent_one_not(store, folders):
    root = Path(store.root)
    for name in ("abandoned", "recent"):
        folder = root / "_checkpoints" / f"vae-{name}"
        folder.mkdir(parents=True)
        for step in (1, 2):
            (folder / f"step-{step:010d}.safetensors").write_text("weights")
    age(root)
    (root / "_checkpoints" / "vae-recent" / "step-0000000002.safetensors").touch()
    lines = collect(store)
    assert any("_checkpoints/vae-abandoned  " in line for line in lines)
    assert not (root / "_checkpoints" / "vae-abandoned").exists()
    assert len(list((root / "_checkpoints" / "vae-recent").iterdir())) == 2


def test_what_is_no_artifact_is_not_touched(store, folders):
    foreign = Path(store.root) / "notes" / "readme.txt"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    age(foreign.parent)
    collect(store)
    assert foreign.exists()


def test_an_artifact_recorded_while_it_is_collected_stays(store, folders, monkeypatch):
    _, dead = folders
    original, calls = garbage.Garbage.find, []

    def find(self, forgotten=()):
        found = original(self, forgotten)
        if not calls:  # another run publishes the same content and records it just now
            record(Path(store.root), publish(store, "dead"), key="vae-" + "b" * 64)
        calls.append(found)
        return found

    monkeypatch.setattr(garbage.Garbage, "find", find)
    collect(store)
    assert calls[0] and not calls[1]
    assert (dead / "manifest.json").is_file()


def test_old_records_are_forgotten_only_when_asked(store, folders):
    live, _ = folders
    collect(store, "--forget-after-days=50")
    assert live.exists()
    lines = collect(store, "--forget-after-days=30", "--dry-run")
    assert lines[0].startswith(f"would remove {store.root}/_results/{RECORD_KEY}")
    assert lines[1].startswith(f"would remove {live}")
    collect(store, "--forget-after-days=30")
    assert not live.exists()
    assert not list((Path(store.root) / "_results").iterdir())


def test_a_store_without_records_is_left_alone(store):
    publish(store, "new")
    age(Path(store.root))
    with pytest.raises(ValueError, match="no cache record in _results/"):
        collect(store)


@pytest.mark.parametrize("content", ["not json", "{}", json.dumps({"metadata": None})])
def test_a_record_that_cannot_be_read_stops_everything(store, folders, content):
    path = Path(store.root) / "_results" / ("split-" + "d" * 64)
    path.write_text(content)
    with pytest.raises(ValueError, match=f"{path.name} is not a cache record"):
        collect(store)
    assert folders[1].exists()


def test_a_record_that_names_another_serializer_is_not_loaded(store, folders):
    path = Path(store.root) / "_results" / RECORD_KEY
    forged = json.loads(path.read_text())
    forged["metadata"]["serializer"]["type"] = "pickle"
    path.write_text(json.dumps(forged))
    with pytest.raises(ValueError, match="Nothing is removed"):
        collect(store)
    assert all(folder.exists() for folder in folders)


def test_scratch_loses_what_killed_runs_left(store, folders):
    for name in ("drafts/vae-1", "work/vae-2", "work/vae-3"):
        (store.scratch / name).mkdir(parents=True)
        (store.scratch / name / "checkpoint").write_text("x")
    age(store.scratch)
    (store.scratch / "work" / "vae-3" / "checkpoint").touch()
    collect(store, f"--store.scratch={store.scratch}")
    assert not list((store.scratch / "drafts").iterdir())
    assert [path.name for path in (store.scratch / "work").iterdir()] == ["vae-3"]


def test_scratch_loses_decoded_images_and_listings_that_no_run_has_opened(store, folders):
    for name in ("images/old", "images/opened", "sources/old"):
        (store.scratch / name).mkdir(parents=True)
        (store.scratch / name / "lock").touch()
    age(store.scratch)
    (store.scratch / "images/opened/lock").touch()
    collect(store, f"--store.scratch={store.scratch}")
    assert [path.name for path in (store.scratch / "images").iterdir()] == ["opened"]
    assert not list((store.scratch / "sources").iterdir())


def test_scratch_loses_copies_of_a_remote_store_that_no_run_has_opened(store, folders, tmp_path):
    remote = Store("memory://copies", store.scratch)
    opened, old = publish(remote, "opened"), publish(remote, "old", stage="split")
    copies = [remote.directory(artifact) for artifact in (opened, old)]
    age(store.scratch)
    remote.directory(opened)
    lines = collect(store, f"--store.scratch={store.scratch}")
    assert [copy.exists() for copy in copies] == [True, False]
    assert any(line.startswith(f"removed {copies[1]}  ") for line in lines)
    assert (remote.directory(old) / "weights.bin").read_text() == "old"  # fetched again


def test_scratch_loses_the_notes_of_old_trainings_on_a_cluster(store, folders):
    (store.scratch / "ray" / "TorchTrainer_old").mkdir(parents=True)
    age(store.scratch)
    collect(store, f"--store.scratch={store.scratch}")
    assert not list((store.scratch / "ray").iterdir())


def test_a_link_in_scratch_is_removed_and_not_what_it_leads_to(store, folders, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (store.scratch / "images").mkdir(parents=True, exist_ok=True)
    for name, target in (("linked", kept), ("dangling", tmp_path / "nowhere")):
        link = store.scratch / "images" / name
        link.symlink_to(target)
        os.utime(link, (0, 0), follow_symlinks=False)
    collect(store, f"--store.scratch={store.scratch}")
    assert not list((store.scratch / "images").iterdir())
    assert kept.is_dir()


@pytest.mark.parametrize(
    "days, message", [("0", "at least 1 day"), ("inf", "at most 36,500"), ("x", "not a number")]
)
def test_an_impossible_age_is_refused(store, capsys, days, message):
    with pytest.raises(SystemExit) as stopped:
        main(["gc", f"--store.root={store.root}", f"--older-than-days={days}"])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_scratch_folder_that_is_not_there_is_told(store, folders, tmp_path):
    with pytest.raises(ValueError, match=r"--store\.scratch .*nowhere: there is no such folder"):
        collect(store, f"--store.scratch={tmp_path}/nowhere")


def test_places_are_read_as_in_a_run(store, folders, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (store.scratch / "drafts" / "vae-1").mkdir(parents=True)
    age(store.scratch)
    lines = list(
        garbage.command([f"--store.root=file://{store.root}/", "--store.scratch=~/scratch"])
    )
    assert lines[0].startswith(f"removed {folders[1]}  ")
    assert not list((store.scratch / "drafts").iterdir())


def test_the_error_is_one_line(store, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["gc", f"--store.root={store.root}"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: --store.root ")


def test_a_bucket_is_collected_like_a_folder(tmp_path, monkeypatch):
    with s3_server() as env:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        s3 = client_of(env)
        s3.create_bucket(Bucket="cxr-garbage")
        store = Store("s3://cxr-garbage/store", tmp_path)
        live, dead = publish(store, "live"), publish(store, "dead")
        s3.upload_file(str(record(tmp_path, live)), "cxr-garbage", f"store/_results/{RECORD_KEY}")
        assert garbage.Garbage(store.root, timedelta(days=1)).find() == []
        everything_is_old = garbage.Garbage(store.root, timedelta(days=-1))
        found = everything_is_old.find()
        for entry in found:
            everything_is_old.remove(entry)
        left = [item["Key"] for item in s3.list_objects_v2(Bucket="cxr-garbage")["Contents"]]
    assert [entry.path for entry in found] == [f"cxr-garbage/store/vae/{dead.key}"]
    assert {key.split("/")[2] for key in left if "/vae/" in key} == {live.key}
