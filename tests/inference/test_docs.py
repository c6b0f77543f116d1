"""Every command and the snippet of docs/use.md, run as they stand there."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrmodel.inference.command_line import main
from cxrmodel.inference.use_config import EvaluateConfig
from flows.flags import read_flags
from tests.data.images.image_bytes import dicom

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "use.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("cxrmodel")]
EVALUATIONS = [line for line in LINES if line.startswith("python flows/evaluate.py")]
INSTALLS = [line for line in LINES if line.startswith("pip install")]
(SNIPPET,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(run, bundle, tmp_path, monkeypatch):
    """Where the words of the page mean something."""
    monkeypatch.chdir(tmp_path)
    Path("BUNDLE").symlink_to(bundle)
    Path("images").symlink_to(run.root / "images")
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    index["image"] = "images/" + index["image"]
    index[["image", "patient_id", "Infiltration"]].to_csv("labels.csv", index=False)
    return tmp_path


def test_the_page_has_commands():
    assert len(COMMANDS) >= 8
    assert {shlex.split(line)[1] for line in COMMANDS} == {
        *("info", "predict", "recalibrate", "export")
    }


def test_every_line_of_the_page_is_run_or_installs():
    assert len(EVALUATIONS) >= 2
    assert {*LINES} == {*COMMANDS, *EVALUATIONS, *INSTALLS}
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    for line in INSTALLS:
        extras = re.search(r"\[(.*)\]", line.partition("#")[0])
        assert not extras or extras[1] in project["optional-dependencies"]


def test_the_snippet_of_the_page_runs(run, folder):
    images = sorted((run.root / "images").iterdir())
    Path("study").mkdir()
    shutil.copy(images[0], "a.png")
    with Image.open(images[1]) as image:
        Path("study/b.dcm").write_bytes(dicom(np.array(image.convert("L"))))
    names: dict = {}
    exec(SNIPPET, names)
    assert names["table"]["image"].tolist() == ["a.png", "study/b.dcm"]
    assert names["table"]["p_Infiltration"].notna().any()


@pytest.mark.parametrize("line", EVALUATIONS)
def test_the_flags_of_an_evaluation_are_settings(line):
    """Such a run itself is in tests/flows."""
    words = shlex.split(line, comments=True)[2:]
    assert "--bundle" in words
    config = read_flags(EvaluateConfig, "flows/evaluate.py", words)
    assert (config.bundle, config.data.root.endswith("SITE")) == ("BUNDLE", True)
    assert config.recalibrate == (300 if "--recalibrate" in words else None)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_runs(folder, line):
    words = shlex.split(line.replace("[", "").replace("]", ""))[1:]
    if words[0] == "export":
        pytest.importorskip("onnxruntime")
    main(words)
    for flag in ("--out", "--onnx"):
        if flag in words:
            assert (folder / words[words.index(flag) + 1]).exists()


def test_the_example_without_pytorch_gives_the_models_probabilities(run, model, folder):
    pytest.importorskip("onnxruntime")
    main(["export", "BUNDLE", "--onnx", "model.onnx"])
    paths = [str(path) for path in sorted((run.root / "images").iterdir())[:3]]
    command = [sys.executable, str(DOCS / "onnx_example.py"), "model.onnx", *paths]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    scores = model.predict(paths, gate=False)
    for line, (_, row) in zip(ran.stdout.splitlines(), scores.iterrows(), strict=True):
        label, told = line.split(" ", 1)[1].split(", ")[0].split()
        probabilities = np.array([row[f"p_{name}"] for name in model.labels])
        assert model.labels[int(probabilities.argmax())] == label
        assert float(told) == pytest.approx(probabilities.max(), abs=6e-4)
