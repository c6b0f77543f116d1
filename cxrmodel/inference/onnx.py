"""The networks as one ONNX file, which proves to give the same numbers before it is written."""

from __future__ import annotations

import json
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrmodel.data.images import grey
from cxrmodel.errors import CxrModelError
from cxrmodel.inference.predictor import Model
from cxrmodel.models import plain_convolutions

OPSET = 17
NUM_TRIED, MIN_TRIED = 6, 2
MAX_P_DIFFERENCE, MAX_MU_DIFFERENCE = 1e-5, 1e-4
INPUT = "images"
OUTPUTS = ("probabilities", "mu", "logvar")
RECONSTRUCTION = "reconstruction"
EXTRA = "Exporting needs the extra `export`: pip install 'cxrmodel[export]'."


class ExportError(CxrModelError):
    """An exported network does not give what the model gives."""


def _outputs_of(model: Model) -> tuple[str, ...]:
    """Return the names of the outputs; a model that classifies nothing has no probabilities."""
    return OUTPUTS if model.labels else OUTPUTS[1:]


class _Graph(nn.Module):
    """From bytes to probabilities, mean and log-variance, and the reconstruction where asked."""

    def __init__(self, model: Model, with_reconstruction: bool) -> None:
        super().__init__()
        self.vae, self.classifier = model.networks
        self._with_reconstruction = with_reconstruction
        self.num_outputs = len(_outputs_of(model))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Take (N, S, S), uint8."""
        image = images.float().div(255).unsqueeze(1)
        mu, logvar = self.vae.encoder(image)
        outputs = (self.classifier(mu).sigmoid(), mu, logvar)[-self.num_outputs :]
        if not self._with_reconstruction:
            return outputs
        return (*outputs, self.vae.decoder(mu).squeeze(1))


def export_onnx(model: Model, path: Path, *, with_reconstruction: bool = False) -> dict[str, float]:
    """Write an ONNX file, in float32.

    It takes `images`, (N, S, S) uint8 as `Model.preprocessing` makes them, and gives
    `probabilities` (N, K) where it classifies anything, `mu` and `logvar` (N, Z) and, where asked,
    `reconstruction` (N, S, S). Its metadata hold labels, thresholds and preprocessing.

    It is tried on the reconstructions of some validation latents of the bundle, at two sizes of
    batch, before it appears.

    Args:
        model: On the CPU.
        path: Where the file appears.
        with_reconstruction: Whether the file holds the decoder too.

    Returns:
        The largest difference of `probabilities` and of `mu` that was found.

    Raises:
        ExportError: A probability differs by more than 1e-5, or a mean by more than 1e-4.
        ValueError: The path is that of a folder.
        ModuleNotFoundError: onnx or onnxruntime is not installed.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it.")
    try:
        import onnx  # noqa: PLC0415 - an optional extra
        import onnxruntime  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(EXTRA) from error
    graph = _Graph(model, with_reconstruction).eval()
    outputs = (*_outputs_of(model), *([RECONSTRUCTION] if with_reconstruction else []))
    tried = _images_to_try(model)
    partial = path.with_name(f"{path.name[:100]}.{uuid.uuid4().hex}.partial")
    try:
        with plain_convolutions(), torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an old exporter; its file is compared below
            torch.onnx.export(
                graph,
                (torch.from_numpy(tried[:MIN_TRIED]),),
                str(partial),
                input_names=[INPUT],
                output_names=list(outputs),
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
            expected = [tensor.numpy() for tensor in graph(torch.from_numpy(tried))]
        _add_metadata(onnx, partial, model)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        differences = _differences(session, tried, expected)
        _check(differences)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return differences


def _images_to_try(model: Model) -> NDArray[np.uint8]:
    """Return what some latents of the validation images look like, (n, S, S), n at least 2."""
    mu = model.bundle.reference.filter(regex=r"^mu_\d+$").to_numpy(np.float32)[:NUM_TRIED]
    if len(mu) < MIN_TRIED:
        mu = np.stack([model.usual_latent, model.usual_latent + 1]).astype(np.float32)
    decoded = model.decode(mu)
    return (decoded * 255).round().astype(np.uint8)


def _differences(
    session: Any, images: NDArray[np.uint8], expected: list[NDArray[np.float32]]
) -> dict[str, float]:
    """Return the largest difference of each output, over all images at once and one by one."""
    names = [output.name for output in session.get_outputs()]
    found = [session.run(None, {INPUT: images})]
    alone = [session.run(None, {INPUT: images[row : row + 1]}) for row in range(len(images))]
    found.append([np.concatenate(parts) for parts in zip(*alone, strict=True)])
    return {
        name: max(float(np.abs(given[place] - expected[place]).max()) for given in found)
        for place, name in enumerate(names)
    }


def _check(differences: dict[str, float]) -> None:
    limits = {"probabilities": MAX_P_DIFFERENCE, "mu": MAX_MU_DIFFERENCE}
    for name, limit in limits.items():
        if (
            name in differences and not differences[name] <= limit
        ):  # not a number is no proof either
            raise ExportError(
                f"The ONNX file gives {name} that differ by up to {differences[name]:.2g} from the "
                f"model's, more than {limit:g}, so it is not written. Try another version of "
                "PyTorch or onnxruntime."
            )


def _add_metadata(onnx: Any, path: Path, model: Model) -> None:
    description = model.bundle.description
    proto = onnx.load(str(path))
    about = {
        "bundle": model.bundle.digest,
        "labels": list(model.labels),
        "thresholds": model.thresholds,
        "images": description["images"],
        "grey_levels": grey.METHOD,
        "not_for": "clinical use",
    }
    for name, value in about.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value if isinstance(value, str) else json.dumps(value)
    onnx.save(proto, str(path))
