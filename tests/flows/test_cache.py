"""Caching by content, each run in a process of its own against a real Prefect server."""

import base64
import json
import pickle
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from cxrmodel.config import Stage
from cxrmodel.storage.layout import MANIFEST_FILE

STAGES = {*get_args(Stage)}


@pytest.fixture
def pipeline(finished, tmp_path):
    """The finished run's store and scratch, moved elsewhere."""
    original, _ = finished
    shutil.copytree(original.folder, tmp_path / "moved")
    return replace(original, folder=tmp_path / "moved")


@pytest.fixture
def editable(pipeline, tmp_path):
    """The same with a copy of the code that a test may edit."""
    shutil.copytree(pipeline.project, tmp_path / "code")
    return replace(pipeline, project=tmp_path / "code", preloaded=None)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def artifact_file(store: Path, stage: str, name: str) -> Path:
    (path,) = store.glob(f"{stage}/*/{name}")
    return path


def test_nothing_changed_everything_is_cached(pipeline, finished):
    run = pipeline.run()
    assert run.ran == set()
    assert set(run.states) >= STAGES
    assert run.metrics == finished[1].metrics


def test_where_and_on_what_it_runs_is_not_in_the_key(pipeline):
    arguments = ("--runtime.num_workers=1", "--vae.checkpoint_every_s=1", "--images.cache=false")
    assert pipeline.run(*arguments).ran == set()


def test_an_edit_without_effect_reruns_its_stage_alone_and_a_comment_reruns_nothing(editable):
    library = editable.project / "cxrmodel"
    append(library / "training" / "classifier" / "fit.py", "\n# a comment\n")
    append(library / "models" / "classifier.py", '\n"""A bare string."""\n')
    append(library / "training" / "vae" / "fit.py", "\nEDITED = True\n")
    assert editable.run().ran == {"vae"}


def test_an_edit_with_effect_reruns_what_its_content_reaches(editable):
    module = editable.project / "cxrmodel" / "models" / "convolutions.py"
    text = module.read_text()
    assert "NEGATIVE_SLOPE = 0.2\n" in text
    module.write_text(text.replace("NEGATIVE_SLOPE = 0.2\n", "NEGATIVE_SLOPE = 0.3\n"))
    assert editable.run().ran == {"vae", "latents", "classifier", "report", "bundle"}


def test_a_deleted_or_truncated_file_reruns_its_stage_with_a_warning(pipeline):
    deleted = {"vae": "vae.safetensors", "split": MANIFEST_FILE}
    paths = [artifact_file(pipeline.store, stage, name) for stage, name in deleted.items()]
    for path in paths:
        path.unlink()
    truncated = artifact_file(pipeline.store, "latents", "latents.parquet")
    truncated.write_bytes(truncated.read_bytes()[:100])
    run = pipeline.run()
    assert run.ran == {*deleted, "latents"}
    for stage, name in deleted.items():
        assert f"{stage}: runs again, for" in run.stderr
        assert f"{name} is missing" in run.stderr
    assert "latents: runs again, for" in run.stderr
    assert "has 100 bytes instead of" in run.stderr
    assert all(path.is_file() for path in paths)
    assert truncated.stat().st_size > 100


def test_an_emptied_scratch_reruns_nothing(pipeline):
    shutil.rmtree(pipeline.scratch)
    assert pipeline.run().ran == set()
    shutil.rmtree(pipeline.scratch)
    assert pipeline.run("--report.seed=1").ran == {"report", "bundle"}


def test_refresh_forces_a_stage(pipeline):
    run = pipeline.run("--refresh", "vae")
    assert run.ran == {"vae"}
    assert "vae: refreshed as asked" in run.stderr
    assert pipeline.run().ran == set()


def test_a_changed_image_reruns_what_saw_it(pipeline, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(pipeline.data, images)
    copied = replace(pipeline, data=str(images))
    assert copied.run().ran == set()  # the copy keeps the times of the files
    first, second = sorted((images / "images").glob("*.png"))[:2]
    shutil.copyfile(first, second)
    assert copied.run().ran == STAGES


class Trap:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return subprocess.getoutput, (self.command,)


def forged_class(record, command):
    call = {"__class__": "subprocess.getoutput", "data": {"cmd": command}}
    return {**record, "result": json.dumps(call)}


def forged_pickle(record, command):
    serializer = {"type": "pickle", "picklelib": "pickle"}
    payload = base64.encodebytes(pickle.dumps(Trap(command))).decode()
    return {"metadata": {**record["metadata"], "serializer": serializer}, "result": payload}


def test_a_forged_record_runs_nothing_and_is_replaced(pipeline, tmp_path):
    forgers, sprung = {"split": forged_class, "classifier": forged_pickle}, tmp_path / "sprung"
    for stage, forge in forgers.items():
        (path,) = pipeline.store.glob(f"_results/{stage}-*")
        path.write_text(json.dumps(forge(json.loads(path.read_text()), f"touch {sprung}")))
    run = pipeline.run()
    assert not sprung.exists()
    assert run.ran == forgers.keys()
    for stage in forgers:
        assert f"{stage}: runs again, for its record" in run.stderr
    assert pipeline.run().ran == set()
