"""Synthetic chest films in NIH ChestX-ray14's layout, to try the pipeline without patient data."""

from cxrmodel.phantom.dataset import write_phantoms
from cxrmodel.phantom.image import draw_film, film_boxes
from cxrmodel.phantom.spec import FilmSpec

__all__ = ["FilmSpec", "draw_film", "film_boxes", "write_phantoms"]
