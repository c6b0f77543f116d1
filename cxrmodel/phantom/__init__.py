"""Synthetic chest X-rays in NIH ChestX-ray14's layout, to try the pipeline without patient data."""

from cxrmodel.phantom.dataset import write_phantoms
from cxrmodel.phantom.image import draw_image, image_boxes
from cxrmodel.phantom.population import ImageSpec

__all__ = ["ImageSpec", "draw_image", "image_boxes", "write_phantoms"]
