"""What made a result, as its manifest and the report record it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from typing import Any

import torch

from cxrmodel.code_digest import code_digest
from cxrmodel.config import RuntimeConfig
from cxrmodel.storage.store import Artifact
from cxrmodel.training.devices import resolve_device
from tasks.engine.cache import identify

PACKAGES = ("cxrmodel", "numpy", "pandas", "pillow", "prefect", "pyarrow", "safetensors",
            "scikit-learn", "torch")  # fmt: skip


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
    device = resolve_device(runtime.device)
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    return f"{name or platform.machine()}, {torch.get_num_threads()} threads, {device.type}"


def combined_fingerprint(*artifacts: Artifact) -> str:
    """Return one sha256 for the content of several artifacts."""
    return hashlib.sha256("".join(each.fingerprint for each in artifacts).encode()).hexdigest()
