"""The files of a trained network in a stage's folder; the same content gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cxrmodel.errors import DamagedArtifactError
from cxrmodel.storage.layout import CONFIG_FILE

SHOWN_PROBLEMS = 3
REMEDY = "Delete that folder and run its stage again"

Network = TypeVar("Network", bound=nn.Module)


def contiguous_state(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers by name, on the CPU and in the order of their indices."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write `config.json`."""
    text = json.dumps(config, indent=1, sort_keys=True, allow_nan=False)
    (directory / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")


def write_table(path: Path, rows: pd.DataFrame) -> None:
    """Write a Parquet file without an index."""
    rows.to_parquet(path, index=False, compression="zstd")


def write_weights(path: Path, state: dict[str, Tensor]) -> None:
    """Write a safetensors file."""
    save_file(state, path)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a stage's Parquet file.

    Args:
        path: The file.
        columns: Names that it must have; it may have more.

    Raises:
        DamagedArtifactError: The file is missing or unreadable, or lacks one of the columns.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        raise DamagedArtifactError(f"{path} cannot be read: {error}. {REMEDY}.") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DamagedArtifactError(
            f"{path} has no column {_first(missing)}: another version of this package, or another "
            f"program, wrote it; its columns are {_first(list(table.columns))}. {REMEDY}."
        )
    return table


def read_architecture(directory: Path, fields: tuple[str, ...]) -> dict[str, int]:
    """Return the sizes that `config.json` gives the network.

    Raises:
        DamagedArtifactError: The file is missing or unreadable, lacks one of them, or has one that
            is no number.
    """
    path = directory / CONFIG_FILE
    try:
        architecture = json.loads(path.read_text(encoding="utf-8"))["architecture"]
        return {field: int(architecture[field]) for field in fields}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedArtifactError(
            f"{path} does not describe a network: it needs 'architecture' with "
            f"{', '.join(fields)} ({type(error).__name__}: {error}). {REMEDY}."
        ) from error


def read_weights(model: Network, path: Path) -> Network:
    """Fill a network with a file's weights and return it, in evaluation mode.

    Raises:
        DamagedArtifactError: The file is missing or unreadable, belongs to another network, or
            holds a weight that is not finite.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedArtifactError(
            f"{path} cannot be read as weights: {error}. {REMEDY}."
        ) from error
    problems = _differences(model.state_dict(), state)
    if problems:
        raise DamagedArtifactError(
            f"{path} holds the weights of another network than {CONFIG_FILE} describes: "
            f"{_first(problems, '; ')}. {REMEDY}."
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise DamagedArtifactError(
            f"{path} holds weights that are not finite, in {_first(broken)}: the training that "
            f"wrote it had diverged. {REMEDY}, with a lower learning rate."
        )
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _differences(expected: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    missing = [f"{name} is missing" for name in expected if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in expected]
    unlike = [
        f"{name} is {_description(found[name])} instead of {_description(tensor)}"
        for name, tensor in expected.items()
        if name in found and _description(found[name]) != _description(tensor)
    ]
    return [*missing, *unknown, *unlike]


def _first(names: Sequence[str], separator: str = ", ") -> str:
    more = " …" if len(names) > SHOWN_PROBLEMS else ""
    return f"{separator.join(names[:SHOWN_PROBLEMS])}{more}"


def _description(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def empty_network(network: type[Network], **sizes: int) -> Network:
    """Build a network without memory or random numbers, to be filled by `read_weights`."""
    with torch.device("meta"):
        return network(**sizes)
