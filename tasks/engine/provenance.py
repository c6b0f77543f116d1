"""What determines a result, and what made it: code, inputs, packages, machine."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cxrmodel.code_digest import code_digest
from cxrmodel.config import RuntimeConfig
from cxrmodel.data.source import Source
from cxrmodel.settings import Section
from cxrmodel.storage.store import Artifact
from cxrmodel.training.devices import resolve_device
from tasks.engine.pixels import PixelSource

PACKAGES = ("cxrmodel", "numpy", "pandas", "pillow", "prefect", "pyarrow", "safetensors",
            "scikit-learn", "torch")  # fmt: skip
PLACES = frozenset(
    {"root", "runtime", "store"}
)  # where and on what a stage runs, not what it makes


def identify(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a stage's inputs determines its result, as JSON values.

    Raises:
        TypeError: An input is of a type that this function does not know.
    """
    return {
        name: _identity(name, value) for name, value in sorted(inputs.items()) if name not in PLACES
    }


def _identity(name: str, value: Any) -> Any:
    if isinstance(value, Section):
        return value.key_fields()
    if isinstance(value, Artifact | Source | PixelSource):
        return value.fingerprint
    if isinstance(value, dict):
        return identify(value)
    raise TypeError(
        f"{name} is a {type(value).__name__}, which has no place in a cache key: pass a config "
        "section, an Artifact, a Source, a PixelSource, or a dictionary of them"
    )


def provenance(function: Callable[..., Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a result: code, inputs with their settings and seeds, packages, machine."""
    return {
        "code": code_digest(function.__module__),
        "inputs": identify(inputs),
        "packages": package_versions(),
        "machine": machine(inputs.get("runtime", RuntimeConfig())),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}


def machine(runtime: RuntimeConfig) -> str:
    """Describe the hardware that a stage runs on; of a Ray cluster, what is asked of it."""
    if runtime.ray_address:  # only its workers know what they have
        return f"Ray, {runtime.ray_workers or 'all'} workers, {runtime.device}"
    where = resolve_device(runtime.device)
    if where.type == "cuda":
        return str(torch.cuda.get_device_name(where))
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name or platform.machine()}, {torch.get_num_threads()} threads, {where.type}"
