"""Which edits change the digest of a stage's code; each digest is taken in a fresh process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxrmodel.config import SIDE_STEP
from cxrmodel.models.vae import CHANNELS

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for package in ("cxrmodel", "tasks"):
        shutil.copytree(PROJECT / package, tmp_path / package)
    return tmp_path


def digest(project: Path, stage: str) -> str:
    code = f"from cxrmodel.code_digest import code_digest; print(code_digest('tasks.{stage}'))"
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
    module = project / "cxrmodel" / "training" / "vae" / "fit.py"
    module.write_text("# a comment\n\n" + module.read_text().replace('"""', '"""Edited. ', 1))
    append(module, "\n\n\n# the end\n")
    assert digest(project, "vae") == before


def test_code_of_the_stage_counts(project):
    before = digest(project, "vae")
    append(project / "cxrmodel" / "training" / "vae" / "fit.py", "\nEDITED = 1\n")
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
        ("cxrmodel/data/datasets/nih.py", "classifier"),
        ("cxrmodel/data/images/decode.py", "vae"),
        ("cxrmodel/data/images/pixel_cache.py", "latents"),
        ("cxrmodel/training/classifier/fit.py", "vae"),
        ("cxrmodel/training/classifier/fit.py", "latents"),
        ("cxrmodel/training/latents.py", "classifier"),
        ("cxrmodel/evaluation/metrics.py", "classifier"),
        ("cxrmodel/evaluation/baselines.py", "vae"),
        ("cxrmodel/report/page.py", "baselines"),
        ("cxrmodel/training/vae/fit.py", "classifier"),
        ("cxrmodel/storage/store.py", "index"),
        ("cxrmodel/storage/retry.py", "index"),
        ("cxrmodel/data/files/s3.py", "images"),
        ("cxrmodel/cluster/session.py", "vae"),
        ("cxrmodel/cluster/vae.py", "vae"),
        ("cxrmodel/progress.py", "vae"),
        ("tasks/engine/stage.py", "index"),
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
    lazy = (
        "\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import cxrmodel.data.datasets.nih\n"
    )
    append(project / "cxrmodel" / "models" / "classifier.py", lazy)
    with_lazy = digest(project, "classifier")
    append(project / "cxrmodel" / "data" / "datasets" / "nih.py", "\nEDITED = 1\n")
    assert digest(project, "classifier") == with_lazy != before


def test_a_constant_of_the_settings_counts_where_it_is_used(project):
    append(project / "cxrmodel" / "config.py", "\nHALF = 2\nLIMIT = 3 * HALF\nOTHER = 1\n")
    append(project / "cxrmodel" / "models" / "vae.py", "\nfrom cxrmodel.config import LIMIT\n")
    before = digest(project, "vae")
    edit(project / "cxrmodel" / "config.py", "OTHER = 1", "OTHER = 2")
    assert digest(project, "vae") == before
    edit(project / "cxrmodel" / "config.py", "HALF = 2", "HALF = 5")  # by way of LIMIT
    assert digest(project, "vae") != before


def test_the_defaults_of_a_section_count_where_it_is_filled_with_nothing(project):
    config = project / "cxrmodel" / "config.py"
    append(
        project / "cxrmodel" / "models" / "vae.py",
        "\nfrom cxrmodel.config import SplitConfig, VAEConfig\nD: VAEConfig = SplitConfig()\n",
    )
    before = digest(project, "vae")
    edit(config, "kl_weight: float = Field(1e-3", "kl_weight: float = Field(2e-3")  # a type alone
    assert digest(project, "vae") == before
    edit(config, '"official", "rows"] = "patient"', '"official", "rows"] = "rows"')
    assert digest(project, "vae") != before


def test_what_progress_is_told_does_not_count(project):
    before = digest(project, "vae")
    edit(
        project / "cxrmodel" / "progress.py", "class Progress:", "class Progress:\n    edited = 1\n"
    )
    assert digest(project, "vae") == before


def test_source_is_read_as_utf_8_whatever_the_locale(project):
    append(project / "cxrmodel" / "models" / "vae.py", '\nNAME = "Röntgen"\n')
    code = "from cxrmodel.code_digest import code_digest; print(code_digest('tasks.vae'))"
    found = set()
    for locale in ("C.UTF-8", "C", "POSIX"):
        env = {"PYTHONPATH": str(project), "LC_ALL": locale, "PYTHONUTF8": "0"}
        env |= {"PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=env, cwd=project, check=True, capture_output=True)
        found.add(ran.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("images/decode", True),
        ("images/grey", True),
        ("images/dicom/display", True),
        ("datasets/nih", False),
        ("ledger", False),
    ],
)
def test_the_pixel_cache_follows_the_code_that_decodes(project, module, changes):
    def key() -> str:
        code = (
            "from pathlib import Path; from cxrmodel.config import ImagesConfig;"
            "from cxrmodel.data.images.pixel_cache import cache_key;"
            "print(cache_key(ImagesConfig(), Path('.')))"
        )
        env = {**os.environ, "PYTHONPATH": str(project)}
        command = [sys.executable, "-c", code]
        ran = subprocess.run(command, env=env, cwd=project, check=True, capture_output=True)
        return ran.stdout.decode()

    (project / "listing.parquet").write_bytes(b"")
    before = key()
    path = project / "cxrmodel" / "data" / f"{module}.py"
    path.write_text("# a comment\n" + path.read_text().replace('"""', '"""Edited. ', 1))
    assert key() == before
    append(path, "\nEDITED = 1\n")
    assert (key() != before) is changes


def test_the_smallest_image_is_what_the_network_halves():
    assert 2 ** (len(CHANNELS) - 1) == SIDE_STEP
