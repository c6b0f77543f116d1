import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cxrmodel.config import VAEConfig
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.training.encoding import load_vae

pytestmark = pytest.mark.gpu

CONFIG = VAEConfig(epochs=2, batch_size=4, latent_dim=4, lr=1e-3)


def test_the_loaded_network_is_the_trained_one(fit, pixels, monkeypatch):
    directory, _ = fit()
    vae = load_vae(directory)
    assert not vae.training
    assert not any(weight.requires_grad for weight in vae.parameters())
    published = load_file(directory / "vae.safetensors")
    for name, weight in vae.state_dict().items():
        assert torch.equal(weight, published[name])


def test_missing_weights_are_an_error_not_random_ones(fit):
    directory, _ = fit()
    (directory / "vae.safetensors").unlink()
    with pytest.raises(DamagedArtifactError, match=r"vae\.safetensors cannot be read as weights"):
        load_vae(directory)


def test_weights_of_another_network_are_refused(fit):
    directory, _ = fit()
    config = json.loads((directory / "config.json").read_text())
    config["architecture"]["latent_dim"] = 5
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(DamagedArtifactError, match=r"float32 \(4, 8\) instead of float32 \(5, 8\)"):
        load_vae(directory)


def test_missing_and_unknown_tensors_are_named(fit):
    directory, _ = fit()
    state = load_file(directory / "vae.safetensors")
    state["stranger"] = state.pop("encoder.to_mu.bias")
    save_file(state, directory / "vae.safetensors")
    with pytest.raises(
        DamagedArtifactError, match=r"encoder\.to_mu\.bias is missing; stranger is unknown"
    ):
        load_vae(directory)


def test_weights_that_are_not_finite_are_refused(fit):
    directory, _ = fit()
    state = load_file(directory / "vae.safetensors")
    state["encoder.to_mu.bias"][1] = float("nan")
    save_file(state, directory / "vae.safetensors")
    with pytest.raises(
        DamagedArtifactError, match=r"vae\.safetensors holds .* not finite, in encoder\.to_mu\.bias"
    ):
        load_vae(directory)


def test_truncated_weights_are_refused(fit):
    path = fit()[0] / "vae.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedArtifactError, match=r"vae\.safetensors cannot be read as weights"):
        load_vae(path.parent)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"architecture": {"image_size": 64}}'])
def test_a_config_that_describes_no_network_is_refused(fit, content):
    directory, _ = fit()
    if content is None:
        (directory / "config.json").unlink()
    else:
        (directory / "config.json").write_text(content)
    with pytest.raises(DamagedArtifactError, match=r"config\.json does not describe a network"):
        load_vae(directory)


def test_an_impossible_size_in_the_config_is_refused(fit):
    directory, _ = fit()
    (directory / "config.json").write_text(
        '{"architecture": {"image_size": 65, "latent_dim": 4, "group_norm": 0, "output_bias": 0}}'
    )
    with pytest.raises(DamagedArtifactError, match="image_size must be a positive multiple of 64"):
        load_vae(directory)
