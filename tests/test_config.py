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
    SplitConfig,
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
        (VAEConfig, {"seed": 2**32}),
        (VAEConfig, {"lr": float("inf")}),
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


def test_a_table_of_parts_goes_with_the_method_that_reads_it():
    with pytest.raises(ValidationError, match=r"'file', and split\.file is not given\. Set it"):
        SplitConfig(method="file")
    with pytest.raises(ValidationError, match=r"split\.file is given, .* Set split\.method to 'fi"):
        SplitConfig(file="parts.csv")


@pytest.mark.parametrize(
    ("section", "field"), [(DataConfig, "root"), (DataConfig, "csv"), (StoreConfig, "root")]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(section, field):
    with pytest.raises(ValidationError, match=f"{field}\n.*must not carry credentials") as caught:
        section(**{field: "s3://user:hunter2@bucket/prefix"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "data, root, scratch, message",
    [
        ("/d", "/d/store", "/s", "store.root /d/store lies in data.root /d: what is written there"),
        ("/d", "/o", "/d/scratch", "store.scratch /d/scratch lies in data.root /d"),
        ("/d", "/d", "/s", "store.root /d lies in data.root /d"),
        ("s3://b/d", "s3://b/d/store", "/s", "store.root s3://b/d/store lies in data.root"),
        ("/o/images", "/o", "/s", "data.root /o/images lies in /o/images, which is store.root's"),
        ("/s/images/x", "/o", "/s", "data.root /s/images/x lies in /s/images, which is store.scr"),
        ("/d", "/o", "/o", "store.root and store.scratch are both /o"),
        ("phantom", "/o", "/o", "store.root and store.scratch are both /o"),
        ("/d", "/s/work/store", "/s", "store.root /s/work/store lies in /s/work"),
        ("/d", "/o", "/o/vae", "store.scratch /o/vae lies in /o/vae"),
    ],
)
def test_data_store_and_scratch_lie_apart(data, root, scratch, message):
    with pytest.raises(ValidationError) as caught:
        PipelineConfig(data={"root": data}, store={"root": root, "scratch": scratch})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "data, root, scratch",
    [
        ("/o/films", "/o", "/o/scratch"),
        ("/s/phantom/90", "/o", "/s"),
        ("phantom", "/s/store", "/s"),
        ("s3://b/films", "s3://b/store", "/s"),
    ],
)
def test_places_beside_one_another_are_accepted(data, root, scratch):
    config = PipelineConfig(data={"root": data}, store={"root": root, "scratch": scratch})
    assert (config.data.root, config.store.root, config.store.scratch) == (data, root, scratch)


def test_every_place_has_one_form(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    data = DataConfig(root="file:///films/", csv="~/labels.csv")
    store = StoreConfig(root="~/store/", scratch="~/scratch")
    assert (data.root, data.csv) == ("/films", "/home/me/labels.csv")
    assert (store.root, store.scratch) == ("/home/me/store", "/home/me/scratch")


def test_with_ray_the_workers_get_their_devices_from_it():
    here = RuntimeConfig(device="cuda", ray_address="head:6379")
    assert here.device_here == "auto"
    assert RuntimeConfig(device="cpu", ray_address="head:6379").device_here == "cpu"
    assert RuntimeConfig(device="cuda:1").device_here == "cuda:1"
    for device in ("cuda:1", "mps"):
        with pytest.raises(
            ValidationError, match=r"Set runtime\.device to 'auto', 'cpu' or 'cuda'"
        ):
            RuntimeConfig(device=device, ray_address="local")


def test_every_setting_has_help_and_a_position():
    definitions = PipelineConfig.model_json_schema()["$defs"]
    for section in definitions.values():
        for position, field in enumerate(section["properties"].values()):
            assert field["description"]
            assert field["position"] == position
