"""Every command of docs/use.md, run as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxrmodel.inference.command_line import main

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "use.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("cxrmodel")]


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
