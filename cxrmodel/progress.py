"""How a long loop reports its progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """A moment of a long stage.

    Attributes:
        stage: Name of the stage.
        done: Units finished so far, including those of an earlier attempt that was resumed.
        total: Units in all.
        unit: What is counted, in the plural: `images`, `steps`.
        metrics: Latest values worth watching, by name.
        doing: What is being done now, where the units are unlike each other; empty otherwise.
    """

    stage: str
    done: int
    total: int
    unit: str = "images"
    metrics: Mapping[str, float] = field(default_factory=dict)
    doing: str = ""


ReportProgress = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Report to nobody."""
