"""Two or more finished runs on one page: what differs, and whether the difference is chance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.report.comparison.differences import compare_runs
from cxrmodel.report.comparison.finished_run import FinishedRun
from cxrmodel.report.figures.gallery import jpeg_url
from cxrmodel.report.figures.reconstructions import Example, error_limit
from cxrmodel.report.page import make_environment
from cxrmodel.report.viewer import MAX_BYTES, ErrorScale, Strips, View, ViewerImage, grey

MIN_RUNS = 2
FINGERPRINT_LENGTH = 16  # enough to tell data sets apart, and to fit a column
NUM_IMAGES = 6
MIN_VIEW_BYTES = 4_000  # of a view a hundred pixels wide; of very many runs the page grows instead


def render_comparison(runs: list[FinishedRun], *, seed: int = 0) -> str:
    """Return one self-contained page; the first run is what the others are compared with.

    Raises:
        ValueError: Fewer than two runs were given.
    """
    if len(runs) < MIN_RUNS:
        raise ValueError(f"A comparison needs two reports or more, and {len(runs)} was given.")
    lettered = zip(runs, letters_of(len(runs)), strict=True)
    runs = [replace(run, letter=letter) for run, letter in lettered]
    first, *others = runs
    pathologies = dict.fromkeys(n for run in runs for n in run.metrics["classifier"]["per_class"])
    template = make_environment(escape=True).get_template("comparison.html.j2")
    return template.render(
        runs=runs,
        first=first,
        compared=[compare_runs(first, other, seed=seed) for other in others],
        pathologies=list(pathologies),
        metrics=[f"macro_{metric}" for metric in HEADLINE_METRICS],
        settings=differing_settings([_described(run.metrics) for run in runs]),
        strips=compare_examples({run.letter: run.examples for run in runs}),
    )


def compare_examples(runs: dict[str, list[Example]]) -> Strips:
    """Return the first images that all runs show, with each run's reconstruction and error map.

    Args:
        runs: What each run's report shows, by the run's letter.
    """
    shown = {
        letter: {example.selection.image: example for example in examples}
        for letter, examples in runs.items()
    }
    first, *others = shown.values()
    common = [image for image in first if all(image in other for other in others)][:NUM_IMAGES]
    if not common:
        return Strips({}, None)
    scale = ErrorScale(error_limit(run[image] for run in shown.values() for image in common))
    share = max(MIN_VIEW_BYTES, MAX_BYTES // (len(common) * (1 + 2 * len(runs))))
    images = [
        _compare_image({letter: run[image] for letter, run in shown.items()}, scale, share)
        for image in common
    ]
    return Strips({"compared": images}, scale)


def _compare_image(runs: dict[str, Example], scale: ErrorScale, max_view_bytes: int) -> ViewerImage:
    first = next(iter(runs.values()))
    drawn = {
        "Original": grey(first.original),
        **{f"Reconstruction {letter}": grey(run.reconstruction) for letter, run in runs.items()},
        **{f"Error {letter}": scale.paint(run.error) for letter, run in runs.items()},
    }
    views = [
        View(label, jpeg_url(image, max_bytes=max_view_bytes)) for label, image in drawn.items()
    ]
    errors = ", ".join(f"{letter} {run.selection.l1:.4f}" for letter, run in runs.items())
    return ViewerImage(first.selection.image, [first.selection.name, f"L1 {errors}"], views)


def letters_of(count: int) -> list[str]:
    """Name runs as columns of a spreadsheet are: A to Z, then AA, AB and so on."""
    rounds = (itertools.product(ascii_uppercase, repeat=length) for length in itertools.count(1))
    names = ("".join(letters) for letters in itertools.chain.from_iterable(rounds))
    return list(itertools.islice(names, count))


def _described(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return settings, data and packages of a run, by section."""
    provenance = metrics.get("provenance", {})
    fingerprint = metrics.get("data", {}).get("fingerprint", "")[:FINGERPRINT_LENGTH]
    config: dict[str, Any] = metrics.get("config", {})
    return config | {
        "data": config.get("data", {}) | {"fingerprint": fingerprint},
        "packages": provenance.get("packages") or {},
    }


def differing_settings(configs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not the same everywhere, with each run's value."""
    flat = [dict(_settings(config)) for config in configs]
    names = list(dict.fromkeys(name for config in flat for name in config))
    rows = [(name, [str(config.get(name, "\u2013")) for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, values in config.items():
        if not isinstance(values, dict):  # a setting of no section
            yield section, values
            continue
        for name, value in values.items():
            yield f"{section}.{name}", value
