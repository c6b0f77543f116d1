"""Synthetic chest films in NIH ChestX-ray14's layout, to try the pipeline without patient data."""

from cxrmodel.data.phantom.dataset import write_phantoms
from cxrmodel.data.phantom.film import draw_film, film_boxes
from cxrmodel.data.phantom.spec import FilmSpec

__all__ = ["FilmSpec", "draw_film", "film_boxes", "write_phantoms"]
