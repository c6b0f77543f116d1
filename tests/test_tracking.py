"""What a tracking server is told, and how a setting names it."""

import pytest
from pydantic import ValidationError

from cxrmodel.config import PipelineConfig, TrackingConfig
from cxrmodel.settings import explain
from cxrmodel.tracking import numbers_of, parameters_of


def test_numbers_have_their_intervals_and_the_undefined_are_left_out():
    found = numbers_of(
        {
            "vae": {
                "test_l1": 0.05,
                "test_ssim": None,
                "active_units": 3,
                "aggregate_kl_nats_by_dim": [1.0],
                "intervals": {"test_l1": [0.04, 0.06]},
                "undefined": {"test_ssim": "too small"},
            },
            "classifier": {
                "macro_auroc": 0.7,
                "intervals": {"macro_auroc": [0.6, 0.8]},
                "labels": ["A+B", "C"],
                "per_class": {
                    "A+B": {"auroc": 0.9, "f1": 0.1, "intervals": {"auroc": [0.8, 1.0]}},
                    "C": {"auroc": None, "intervals": {}},
                },
            },
        }
    )
    assert found == {
        "test_l1": 0.05,
        "test_l1_low": 0.04,
        "test_l1_high": 0.06,
        "active_units": 3.0,
        "macro_auroc": 0.7,
        "macro_auroc_low": 0.6,
        "macro_auroc_high": 0.8,
        "auroc/A_B": 0.9,
        "auroc/A_B_low": 0.8,
        "auroc/A_B_high": 1.0,
    }


def test_settings_are_named_as_their_flags():
    found = parameters_of(PipelineConfig().model_dump(mode="json"))
    assert found["vae.kl_weight"] == "0.001"
    assert found["data.columns.labels"] == "[]"
    assert found["classifier.patience"] == "None"


@pytest.mark.parametrize(
    "uri, message",
    [
        ("https://me:secret@mlflow.example.org", "MLFLOW_TRACKING_PASSWORD"),
        ("https://me@mlflow.example.org/x", "must not carry credentials"),
        ("https://mlflow.example.org/?token=secret", "must not carry credentials"),
        ("mlruns", "is no URL of a server"),
        ("https://", "is no URL of a server"),
        ("sqlite:///me:secret@x.db", "is no URL of a server"),
    ],
)
def test_a_server_is_a_url_without_credentials(uri, message):
    with pytest.raises(ValidationError) as caught:
        PipelineConfig.model_validate({"tracking": {"mlflow_uri": uri}})
    told = explain(caught.value, PipelineConfig)
    assert told.startswith("--tracking.mlflow_uri: ")
    assert message in told
    assert "secret" not in told + str(caught.value)


def test_no_key_and_no_fingerprint_depends_on_it():
    tracked = PipelineConfig(tracking=TrackingConfig(mlflow_uri="http://127.0.0.1:5000"))
    assert tracked.fingerprint() == PipelineConfig().fingerprint()
    assert "tracking" not in tracked.key_fields()
