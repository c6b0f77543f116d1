"""The cache key of a stage: what determines its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from cxrmodel.code_digest import code_digest
from cxrmodel.data.source import Source
from cxrmodel.data.split_file import SplitTable
from cxrmodel.settings import Section
from cxrmodel.storage.store import Artifact
from tasks.engine.pixels import PixelSource

NOT_IN_KEY = frozenset({"root", "runtime", "store"})
"""Inputs that say where and on what a stage runs, not what it makes."""


@dataclass
class StagePolicy(CachePolicy):
    """Caches a stage by its version, its code, the content of its inputs and its own settings.

    Attributes:
        stage: Name of the stage.
        version: Raised by hand when something outside the code changes the meaning of a result.
    """

    stage: str = ""
    version: int = 1

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **_: Any,
    ) -> str:
        """Return the key of a call, as Prefect asks for it."""
        return self.key(task_ctx.task.fn, inputs)

    def key(self, function: Callable[..., Any], inputs: Mapping[str, Any]) -> str:
        """Return the key of a call; nothing is looked up or written.

        Raises:
            TypeError: An input is of a type that has no place in a key.
        """
        parts = {
            "stage": self.stage,
            "version": self.version,
            "code": code_digest(function.__module__),
            "inputs": identify(inputs),
        }
        text = json.dumps(parts, sort_keys=True)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()}"


def identify(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a stage's inputs determines its result, as JSON values.

    Raises:
        TypeError: An input is of a type that has no place in a key.
    """
    return {
        name: _identity(name, value)
        for name, value in sorted(inputs.items())
        if name not in NOT_IN_KEY and value is not None
    }


def _identity(name: str, value: Any) -> Any:
    if isinstance(value, Section):
        return value.key_fields()
    if isinstance(value, Artifact | Source | SplitTable | PixelSource):
        return value.fingerprint
    if isinstance(value, dict):
        return identify(value)
    raise TypeError(
        f"{name} is a {type(value).__name__}, which has no place in a cache key: pass a config "
        "section, an Artifact, a Source, a SplitTable, a PixelSource, or a dictionary of them"
    )
