"""Which edits change the digest of a stage's code; each digest is taken in a fresh process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for package in ("cxrmodel", "tasks"):
        shutil.copytree(PROJECT / package, tmp_path / package)
    return tmp_path


def digest(project: Path, stage: str) -> str:
    code = f"from tasks.closure import code_digest; print(code_digest('tasks.{stage}'))"
    env = {**os.environ, "PYTHONPATH": str(project)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=env, cwd=project, check=True, capture_output=True, text=True)
    return ran.stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r} to edit"
    path.write_text(text.replace(old, new, 1))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_comments_docstrings_and_layout_do_not_count(project):
    before = digest(project, "vae")
    module = project / "cxrmodel" / "training" / "vae.py"
    module.write_text("# a comment\n\n" + module.read_text().replace('"""', '"""Edited. ', 1))
    append(module, "\n\n\n# the end\n")
    assert digest(project, "vae") == before


def test_code_of_the_stage_counts(project):
    before = digest(project, "vae")
    append(project / "cxrmodel" / "training" / "vae.py", "\nEDITED = 1\n")
    assert digest(project, "vae") != before


def test_code_of_what_the_stage_imports_counts(project):
    before = digest(project, "vae")
    append(project / "cxrmodel" / "models" / "vae.py", "\nEDITED = 1\n")
    assert digest(project, "vae") != before


def test_code_of_the_task_counts(project):
    before = digest(project, "vae")
    append(project / "tasks" / "vae.py", "\nEDITED = 1\n")
    assert digest(project, "vae") != before


@pytest.mark.parametrize(
    ("edited", "stage"),
    [
        ("cxrmodel/data/nih.py", "classifier"),
        ("cxrmodel/data/images.py", "vae"),
        ("cxrmodel/data/image_cache.py", "latents"),
        ("cxrmodel/training/classifier.py", "vae"),
        ("cxrmodel/training/classifier.py", "latents"),
        ("cxrmodel/training/latents.py", "classifier"),
        ("cxrmodel/evaluation/metrics.py", "classifier"),
        ("cxrmodel/evaluation/baselines.py", "vae"),
        ("cxrmodel/report/html.py", "baselines"),
        ("cxrmodel/training/vae.py", "classifier"),
        ("cxrmodel/store.py", "index"),
        ("tasks/stage.py", "index"),
    ],
)
def test_code_of_other_stages_does_not_count(project, edited, stage):
    before = digest(project, stage)
    append(project / edited, "\nEDITED = 1\n")
    assert digest(project, stage) == before


def test_a_template_counts_for_the_report(project):
    before = digest(project, "report")
    template = next((project / "cxrmodel" / "report" / "templates").iterdir())
    append(template, "\n")
    assert digest(project, "report") != before


def test_imports_for_type_checking_do_not_count(project):
    before = digest(project, "classifier")
    lazy = "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cxrmodel.data.nih\n"
    append(project / "cxrmodel" / "models" / "classifier.py", lazy)
    with_lazy = digest(project, "classifier")
    append(project / "cxrmodel" / "data" / "nih.py", "\nEDITED = 1\n")
    assert digest(project, "classifier") == with_lazy != before
