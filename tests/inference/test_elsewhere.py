"""A bundle that was copied to another place, used without the repository and the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).parents[2]

OFFLINE = """
import socket
import sys

def refuse(*_, **__):
    raise OSError("this machine has no network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse

import cxrmodel
from cxrmodel.inference.command_line import main

assert cxrmodel.__file__.startswith(sys.argv.pop(1)), cxrmodel.__file__
for name in ("tasks", "flows"):  # of the repository
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{name} can be imported")
main(sys.argv[1:])
"""


def test_a_copy_works_elsewhere_without_repository_and_network(run, bundle, model, tmp_path):
    package = tmp_path / "package"
    shutil.copytree(PROJECT / "cxrmodel", package / "cxrmodel")
    shutil.copytree(bundle, tmp_path / "another" / "place")
    images = shutil.copytree(run.root / "images", tmp_path / "images")
    home = tmp_path / "home"
    home.mkdir()
    names = sorted(path.name for path in images.iterdir())[:4]
    # -I leaves out PYTHONPATH and this folder, and -S the packages' .pth files, of which one is
    # the repository's.
    paths = [str(package), *(path for path in sys.path if path.endswith("site-packages"))]
    start = f"import sys; sys.path[:0] = {paths!r}\n{OFFLINE}"
    command = [sys.executable, "-I", "-S", "-c", start, str(package), "predict", "../another/place"]
    files = [f"../images/{name}" for name in names]
    ran = subprocess.run(
        [*command, *files, "--out", "scores.parquet", "--no-gate", "--device", "cpu"],
        cwd=home, env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    scores = pd.read_parquet(home / "scores.parquet")
    assert scores["image"].tolist() == files
    expected = model.predict([images / name for name in names], gate=False)
    columns = [*(f"p_{label}" for label in model.labels), "mu_00", "mu_63", "l1"]
    np.testing.assert_allclose(scores[columns], expected[columns], rtol=0, atol=1e-6)
    assert not {*home.iterdir()} - {home / "scores.parquet"}
