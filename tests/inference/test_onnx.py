"""The exported network gives the model's numbers, or is not written."""

import json

import numpy as np
import pytest

onnxruntime = pytest.importorskip("onnxruntime")
from cxrmodel.inference import onnx as exporting  # noqa: E402
from cxrmodel.inference.onnx import ExportError, export_onnx  # noqa: E402


def test_an_exported_network_gives_the_models_numbers(run, model, tmp_path):
    path = tmp_path / "model.onnx"
    found = export_onnx(model, path, with_reconstruction=True)
    assert found["probabilities"] <= 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == list(model.labels)
    for count in (1, 5):
        pixels = run.pixels.read(np.arange(count))
        probabilities, mu, logvar, reconstruction = session.run(None, {"images": pixels})
        expected = model.score(pixels)
        names = [f"p_{label}" for label in model.labels]
        np.testing.assert_allclose(probabilities, expected[names], atol=1e-5)
        np.testing.assert_allclose(mu, model.encode(pixels)[0], atol=1e-4)
        np.testing.assert_allclose(logvar, model.encode(pixels)[1], atol=1e-4)
        np.testing.assert_allclose(reconstruction, model.reconstruct(pixels), atol=1e-5)


def test_a_file_that_differs_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_MU_DIFFERENCE", 0.0)
    with pytest.raises(ExportError, match="mu that differ by up to"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
