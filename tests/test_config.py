"""Settings: defaults, refusals, and what of them identifies a result."""

import pytest
from pydantic import ValidationError

from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    PipelineConfig,
    ReportConfig,
    RuntimeConfig,
    Section,
    StoreConfig,
    VAEConfig,
)


def test_defaults_are_the_notebooks_method():
    vae, classifier = VAEConfig(), ClassifierConfig()
    assert (vae.latent_dim, vae.kl_weight, vae.lr, vae.batch_size, vae.epochs, vae.precision) == (
        64, 1e-3, 1e-4, 1, 10, "float32",
    )  # fmt: skip
    assert (classifier.lr, classifier.batch_size, classifier.epochs) == (1e-3, 64, 20)
    assert not classifier.standardize
    assert ImagesConfig().size == 1024
    assert PipelineConfig().split.method == "patient"


def test_whole_and_decimal_numbers_give_one_key():
    assert ReportConfig().fingerprint() == ReportConfig(tsne_perplexity=30.0).fingerprint()
    assert DataConfig(fraction=1).fingerprint() == DataConfig().fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"store": StoreConfig(root="s3://elsewhere", scratch="/fast")},
        {"runtime": RuntimeConfig(device="cpu", num_workers=7)},
        {"images": ImagesConfig(cache=False)},
        {"data": DataConfig(root="/elsewhere", csv="/other.csv")},
        {"vae": VAEConfig(checkpoint_every_s=1)},
    ],
)
def test_where_a_run_happens_is_not_in_its_key(change):
    assert PipelineConfig(**change).fingerprint() == PipelineConfig().fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"vae": VAEConfig(precision="bfloat16")},
        {"vae": VAEConfig(batch_size=2)},
        {"images": ImagesConfig(size=256)},
        {"data": DataConfig(fraction=0.5)},
    ],
)
def test_what_changes_a_result_is_in_its_key(change):
    assert PipelineConfig(**change).fingerprint() != PipelineConfig().fingerprint()


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (VAEConfig, {"lr": 0}),
        (VAEConfig, {"epochz": 3}),
        (ImagesConfig, {"size": 1000}),
        (DataConfig, {"fraction": 0}),
        (RuntimeConfig, {"device": "gpu"}),
    ],
)
def test_impossible_settings_are_refused(section: type[Section], values):
    with pytest.raises(ValidationError):
        section(**values)


def test_patience_needs_a_best_epoch_to_wait_for():
    assert ClassifierConfig(patience=3).weights == "best"
    with pytest.raises(ValidationError, match=r"classifier\.weights is 'last'. Set that to 'best'"):
        ClassifierConfig(patience=3, weights="last")


@pytest.mark.parametrize(
    ("section", "field"), [(DataConfig, "root"), (DataConfig, "csv"), (StoreConfig, "root")]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(section, field):
    with pytest.raises(ValidationError, match=f"{field}\n.*must not carry credentials") as caught:
        section(**{field: "s3://user:hunter2@bucket/prefix"})
    assert "hunter2" not in str(caught.value)


def test_every_setting_has_help_and_a_position():
    definitions = PipelineConfig.model_json_schema()["$defs"]
    for section in definitions.values():
        for position, field in enumerate(section["properties"].values()):
            assert field["description"]
            assert field["position"] == position
