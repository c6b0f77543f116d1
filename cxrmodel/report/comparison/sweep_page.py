"""The page of a sweep: which setting was chosen on validation, how sure that is, and its test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.report.comparison.page import differing_settings
from cxrmodel.report.comparison.sweep import L1, SCORES, Spread, SweepResults, as_json
from cxrmodel.report.figures.gallery import Gallery
from cxrmodel.report.figures.sweep import SettingRow, draw_sweep
from cxrmodel.report.page import make_environment, title_of
from cxrmodel.report.prose import number
from cxrmodel.storage.layout import SWEEP_FILE, SWEEP_NUMBERS_FILE

TITLES = {f"macro_{name}": title_of(f"macro_{name}") for name in HEADLINE_METRICS} | {
    L1: "reconstruction error (L1)"
}
DIGITS = {L1: 4}
VERDICTS = {
    "higher": "more than the choice of validation patients explains",
    "lower": "more than the choice of validation patients explains",
    "unclear": "which the choice of validation patients may explain",
}


def sweep_files(
    name: str, results: SweepResults, configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, bytes]:
    """Return the files of a sweep by their names: one self-contained page, and its numbers.

    Args:
        name: Of the sweep.
        results: What it has found.
        configs: The settings of each setting, by section.
    """
    rows = differing_settings([dict(config) for config in configs.values()])
    template = make_environment(escape=True).get_template("sweep.html.j2")
    page = template.render(
        name=name,
        results=results,
        score=TITLES[results.choose_by],
        scores=SCORES,
        titles=TITLES,
        digits=DIGITS,
        verdicts=VERDICTS,
        spread=spread_text,
        names=list(configs),
        settings=rows,
        figures=_figures(results),
    )
    numbers = json.dumps({"name": name, **as_json(results)}, indent=1, allow_nan=False)
    return {SWEEP_FILE: page.encode(), SWEEP_NUMBERS_FILE: f"{numbers}\n".encode()}


def spread_text(found: Spread, digits: int = 3) -> str:
    """Write a mean ± standard deviation over seeds."""
    mean = number(found.mean.value, digits)
    return mean if found.deviation is None else f"{mean} ± {found.deviation:.{digits}f}"


def choice_text(results: SweepResults) -> str:
    """Say in a sentence which setting was chosen, and by what."""
    chosen, title = results.chosen, TITLES[results.choose_by]
    if chosen is None:
        return "No setting could be chosen."
    found = chosen.scores[results.choose_by]
    shown = spread_text(found, DIGITS.get(results.choose_by, 3))
    return f"{chosen.name}: {title} on validation {shown}"


def _figures(results: SweepResults) -> list[Any]:
    """Return the figure of the settings, where there is something to draw."""
    rows = [
        SettingRow(
            one.name,
            one.scores[results.choose_by].by_seed or (),
            one.scores[results.choose_by].mean,
            one.changes.get(results.choose_by),
            is_chosen=one is results.chosen,
        )
        for one in results.settings
    ]
    if not any(row.by_seed for row in rows):
        return []
    title = TITLES[results.choose_by]
    with TemporaryDirectory() as folder:
        gallery = Gallery(Path(folder))
        gallery.add(
            "sweep",
            partial(draw_sweep, rows, title),
            section="validation",
            alt=f"Validation of each setting by {title}, and its difference from {rows[0].name}.",
            caption="Left: the score with each seed (rings) and the mean (dots; orange: chosen). "
            f"Right: the mean less that of {rows[0].name}, with the 95 % interval of a paired "
            "bootstrap over patients.",
        )
        return gallery.figures
