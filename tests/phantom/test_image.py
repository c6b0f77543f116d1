"""Synthetic images: the findings in them can be seen and measured."""

import numpy as np
import pytest

from cxrmodel.data.datasets.labels import PATHOLOGIES
from cxrmodel.phantom import ImageSpec, draw_image, image_boxes


def pair(finding: str, patient_id: int, view: str = "PA") -> tuple[np.ndarray, np.ndarray]:
    """Return the image of a patient without and with a finding, as float32."""
    specs = [ImageSpec(f, view=view, patient_id=patient_id) for f in ((), (finding,))]
    without, with_it = (draw_image(spec, 256).astype(np.float32) for spec in specs)
    return without, with_it


def heart_width(image: np.ndarray, view: str) -> int:
    """Return the bright run about the midline above the diaphragm, in pixels of 256."""
    profile = image[slice(135, 150) if view == "PA" else slice(108, 123)].mean(axis=0)
    bright = profile > (profile[60:200].min() + profile[118:138].mean()) / 2
    left, right = np.flatnonzero(~bright[:128])[-1], 128 + np.flatnonzero(~bright[128:])[0]
    return int(right - left)


@pytest.mark.parametrize("patient_id", [1, 2, 3, 4])
@pytest.mark.parametrize("view", ["PA", "AP"])
def test_cardiomegaly_widens_the_heart(patient_id: int, view: str) -> None:
    without, with_it = (
        heart_width(image, view) for image in pair("Cardiomegaly", patient_id, view)
    )
    assert with_it > 1.2 * without


@pytest.mark.parametrize("finding", ["Effusion", "Mass", "Nodule", "Pneumonia", "Infiltration"])
@pytest.mark.parametrize("patient_id", [1, 2, 3])
def test_an_opacity_brightens_its_box(finding: str, patient_id: int) -> None:
    without, with_it = pair(finding, patient_id)
    boxes = image_boxes(ImageSpec((finding,), patient_id=patient_id), 256)
    assert boxes
    for name, (x, y, width, height) in boxes:
        part = np.s_[int(y) : int(y + height) + 1, int(x) : int(x + width) + 1]
        assert name == finding
        assert (with_it - without)[part].mean() > 8


def test_an_effusion_brightens_the_lower_lung_more_than_the_upper() -> None:
    without, with_it = pair("Effusion", 2)
    change = (with_it - without)[:, 40:216]
    assert change[130:180].mean() > 5 * abs(change[30:80].mean())


def test_emphysema_darkens_the_lungs() -> None:
    without, with_it = pair("Emphysema", 2)
    lungs = np.s_[70:150, 60:100]
    assert with_it[lungs].mean() < without[lungs].mean() - 15


@pytest.mark.parametrize("finding", PATHOLOGIES)
def test_every_finding_changes_the_image(finding: str) -> None:
    without, with_it = pair(finding, 3)
    assert (np.abs(with_it - without) > 12).mean() > 0.0005


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"findings": ("Flu",)}, r"findings must be names of .*, got \['Flu'\]"),
        ({"sex": "X"}, r"sex must be 'M' or 'F', got 'X'"),
        ({"view": "LL"}, r"view must be 'PA' or 'AP', got 'LL'"),
        ({"age": -1}, r"age must be 0 or more, got -1"),
    ],
)
def test_bad_image_specs_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSpec(**fields)  # type: ignore[arg-type]
