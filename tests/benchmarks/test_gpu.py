import json
import os
import subprocess
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]


def test_the_script_for_a_gpu_goes_through_on_a_cpu(tmp_path):
    environment = os.environ | {"RESULTS": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    command = ["benchmarks/gpu.sh", "speed", "run"]
    ran = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"PyTorch {torch.__version__}" in ran.stdout
    assert "the page is left as it is" in ran.stdout
    measured = json.loads((tmp_path / "gpu.json").read_text())
    assert measured["bfloat16"]["4"]["images_per_s"] > 0
    assert "aten::convolution" in (tmp_path / "profile.txt").read_text()
    assert "macro_auroc" in (tmp_path / "metrics.json").read_text()
    assert (tmp_path / "report.html").is_file()
