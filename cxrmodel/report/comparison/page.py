"""Two or more finished runs on one page: what differs, and whether the difference is chance."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

import numpy as np

from cxrmodel.evaluation.metrics import HEADLINE_METRICS
from cxrmodel.report.comparison.differences import compare_runs
from cxrmodel.report.comparison.finished_run import (
    PICTURES,
    FinishedRun,
)
from cxrmodel.report.figures.reconstructions import Examples, error_limit
from cxrmodel.report.page import make_environment
from cxrmodel.report.viewer import MAX_BYTES, ErrorScale, Film, View, grey, jpeg_url

MIN_RUNS = 2
FINGERPRINT_LENGTH = 16  # enough to tell data sets apart, and to fit a column
NUM_FILMS = 6
MIN_VIEW_BYTES = 4_000  # of a view a hundred pixels wide; of very many runs the page grows instead


@dataclass(frozen=True)
class ComparedFilms:
    """Films of several runs on each other.

    Attributes:
        films: Original, every run's reconstruction, and every run's error map.
        scale: Of all error maps.
    """

    films: list[Film]
    scale: ErrorScale


def compare_films(runs: list[Examples], letters: Sequence[str]) -> ComparedFilms | None:
    """Return the first images that all runs show, None where there is none.

    Args:
        runs: What each run's report shows.
        letters: What each run is called.
    """
    shown = [{film.image: row for row, film in enumerate(run.chosen)} for run in runs]
    common = [image for image in shown[0] if all(image in known for known in shown)][:NUM_FILMS]
    if not common:
        return None
    same = [
        _take(run, [known[image] for image in common])
        for run, known in zip(runs, shown, strict=True)
    ]
    scale = ErrorScale(error_limit(same))
    share = max(MIN_VIEW_BYTES, MAX_BYTES // (len(common) * (1 + 2 * len(runs))))
    films = [_film(row, same, letters, scale, share) for row in range(len(common))]
    return ComparedFilms(films, scale)


def _take(run: Examples, rows: list[int]) -> Examples:
    kept = np.array(rows)
    return Examples(
        [run.chosen[row] for row in rows],
        run.originals[kept],
        run.reconstructions[kept],
        run.errors[kept],
        run.l1[kept],
    )


def _film(
    row: int, runs: list[Examples], letters: Sequence[str], scale: ErrorScale, max_bytes: int
) -> Film:
    called = list(zip(letters, runs, strict=True))
    pictures = [("Original", grey(runs[0].originals[row]))]
    pictures += [
        (f"Reconstruction {letter}", grey(run.reconstructions[row])) for letter, run in called
    ]
    pictures += [(f"Error {letter}", scale.paint(run.errors[row])) for letter, run in called]
    image = runs[0].chosen[row].image
    errors = ", ".join(f"{letter} {run.l1[row]:.4f}" for letter, run in called)
    views = [View(label, jpeg_url(picture, max_bytes=max_bytes)) for label, picture in pictures]
    return Film(image, [image.removesuffix(".png"), f"L1 {errors}"], views)


def render_comparison(runs: list[FinishedRun], *, seed: int = 0) -> str:
    """Return one self-contained page; the first run is what the others are compared with.

    Raises:
        ValueError: Fewer than two runs were given.
    """
    if len(runs) < MIN_RUNS:
        raise ValueError(f"A comparison needs two reports or more, and {len(runs)} was given.")
    first, *others = runs
    compared = [compare_runs(first, other, seed=seed) for other in others]
    shown = [run.films for run in runs if run.films is not None]
    letters = letters_of(len(runs))
    compared_films = compare_films(shown, letters) if len(shown) == len(runs) else None
    pathologies = dict.fromkeys(n for run in runs for n in run.metrics["classifier"]["per_class"])
    template = make_environment(escape=True).get_template("comparison.html.j2")
    return template.render(
        runs=runs,
        first=first,
        compared=compared,
        pathologies=list(pathologies),
        metrics=[f"macro_{metric}" for metric in HEADLINE_METRICS],
        settings=differing_settings([_described(run.metrics) for run in runs]),
        pictures=[name for name in PICTURES if all(name in run.pictures for run in runs)],
        films=compared_films.films if compared_films else [],
        scale=compared_films.scale if compared_films else None,
        letters=letters,
    )


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
