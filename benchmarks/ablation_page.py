"""Puts the scores of the ablation into `docs/tuning.md`, between its markers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "tuning.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"
COLUMNS = {
    "val_l1": "L1, val",
    "val_abnormal": "abnormal, val",
    "val_view": "view, val",
    "test_l1": "L1, test",
    "test_abnormal": "abnormal, test",
    "test_view": "view, test",
}


def write_page(results: dict[str, list[dict[str, Any]]], page: Path = PAGE) -> None:
    """Replace what lies between the markers of a page.

    Args:
        results: As in `ablation.json`: a row per seed, by recipe.
        page: A Markdown file with both markers.
    """
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{render(results)}\n{END}{after}", encoding="utf-8")


def render(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return a table: a recipe a line, mean ± standard deviation over seeds."""
    lines = [
        f"| recipe | seeds | {' | '.join(COLUMNS.values())} |",
        f"|---|---|{'---|' * len(COLUMNS)}",
    ]
    for name, rows in results.items():
        cells = [_spread([row[column] for row in rows], column) for column in COLUMNS]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float], column: str) -> str:
    digits = 4 if column.endswith("l1") else 3
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
