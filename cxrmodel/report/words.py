"""How numbers are written on the page."""

from __future__ import annotations

from cxrmodel.evaluation.intervals import Interval

NONE = "\u2013"  # an en dash


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a fixed count of decimals, or a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def interval(bounds: Interval | list[float] | None, digits: int = 3, sign: str = "") -> str:
    """Write an interval as `low to high`, or a dash where there is none."""
    if bounds is None:
        return NONE
    low, high = bounds
    return f"{low:{sign}.{digits}f} to {high:{sign}.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of 1 in percent."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Write a count with its noun in the right number."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def duration(seconds: float) -> str:
    """Write a wall time in the two units that matter."""
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def names_of(names: list[str]) -> str:
    """List pathologies as prose."""
    return ", ".join(name.replace("_", " ") for name in names)
