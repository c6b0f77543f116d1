"""The notebook's settings as a baseline of other runs."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from cxrmodel.config import PipelineConfig
from cxrmodel.report.document import build_document
from cxrmodel.report.inputs import read_tables
from cxrmodel.report.results import measure
from cxrmodel.report.seed_run import SAME, SETTINGS, describe_seed_run, is_seed, seed_command
from cxrmodel.report.verdicts import further_verdicts, verdict

SEED_FILE = Path(__file__).parents[2] / "configs" / "seed.yaml"


def test_the_settings_are_those_of_the_preset():
    preset = PipelineConfig(**yaml.safe_load(SEED_FILE.read_text()))
    for section, settings in (SETTINGS | SAME).items():
        assert getattr(preset, section).key_fields() == settings.key_fields(), section


def test_only_the_notebooks_settings_are_the_seed():
    preset = PipelineConfig(**yaml.safe_load(SEED_FILE.read_text()))
    assert is_seed(preset.model_dump())
    by_patient = preset.model_copy(update={"split": PipelineConfig().split})
    assert is_seed(by_patient.model_dump())
    assert not is_seed(PipelineConfig().model_dump())  # its classifier keeps the best epoch
    longer = preset.vae.model_copy(update={"epochs": 11})
    assert not is_seed(preset.model_copy(update={"vae": longer}).model_dump())


def test_the_command_gives_the_same_data_and_split():
    config = PipelineConfig(data={"root": "/data/my films"}, images={"size": 256})
    assert seed_command(config.model_dump()) == (
        "python flows/main.py --config configs/seed.yaml --data.root '/data/my films' "
        "--images.size 256 --split.method patient"
    )
    assert seed_command({}) == "python flows/main.py --config configs/seed.yaml"


@pytest.fixture(scope="module")
def compared(made_run, tmp_path_factory):
    """The made run beside a seed whose probabilities are blind and whose errors are 0.01 higher."""
    folder = tmp_path_factory.mktemp("seed")
    latents = pd.read_parquet(made_run.inputs.latents / "latents.parquet")
    latents["l1"] += np.float32(0.01)
    latents.iloc[::-1].to_parquet(folder / "latents.parquet", index=False)
    predictions = pd.read_parquet(made_run.inputs.classifier / "predictions.parquet")
    predictions.iloc[:, 2:] = np.float32(0.5)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    inputs = dataclasses.replace(made_run.inputs, seed_latents=folder, seed_classifier=folder)
    tables = read_tables(inputs)
    results = measure(tables, inputs, made_run.record, made_run.pixels, seed=0)
    return tables, results, build_document(tables, results, made_run.record)


def test_it_is_judged_as_the_other_baselines_are(compared):
    tables, results, document = compared
    assert document["seed_run"]["state"] == "compared"
    assert document["baselines"]["seed"]["macro_auroc"] == 0.5
    comparisons = document["comparisons"]
    assert comparisons["seed"]["macro_auroc"] == comparisons["all_positive"]["macro_auroc"]
    l1 = document["comparisons"]["seed"]["test_l1"]
    assert l1["difference"] == pytest.approx(-0.01, abs=1e-6)
    assert l1["interval"] == pytest.approx([-0.01, -0.01], abs=1e-6)
    assert l1["verdict"] == "lower"
    assert "the notebook's settings on the same split (+" in verdict(results)
    assert further_verdicts(results, tables)[-1] == (
        "It is lower than that of the notebook's settings on the same split (-0.0100, -0.0100 to "
        "-0.0100)."
    )
    json.dumps(document, allow_nan=False)


def test_without_it_the_report_says_how_to_have_it(metrics):
    assert "seed" not in metrics["baselines"]
    assert metrics["seed_run"]["state"] == "absent"
    assert (
        "--config configs/seed.yaml --data.root /data/ChestXray14"
        in (metrics["seed_run"]["sentence"])
    )


def test_the_notebooks_own_run_has_no_rival_of_its_name():
    preset = PipelineConfig(**yaml.safe_load(SEED_FILE.read_text()))
    assert describe_seed_run(preset.model_dump(), is_compared=False)["state"] == "this run"
