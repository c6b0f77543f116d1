"""The same test images as several runs reconstruct them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxrmodel.report.figures.reconstructions import Examples, error_limit
from cxrmodel.report.films import MAX_BYTES, ErrorScale, Film, View, grey
from cxrmodel.report.jpeg import jpeg_url

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
