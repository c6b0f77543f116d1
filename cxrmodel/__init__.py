"""Learn from chest X-rays, and use what was learned; without an orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrmodel.inference.predictor import load

__all__ = ["load"]


def __getattr__(name: str) -> object:
    if name == "load":  # when asked for: it brings PyTorch with it
        from cxrmodel.inference.predictor import load  # noqa: PLC0415

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
