"""A hospital whose images arrive day by day: patients of one synthetic image each, and a table."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cxrmodel.phantom import ImageSpec, draw_image

SIZE_PX = 64
FINDINGS = {"Consolidation": (44, 18), "Mass": (20, 44)}
"""Row and column of what each shows: a large bright spot, which a short training learns."""

SHARE, SPREAD_PX, BRIGHTNESS = 0.4, 7.0, 0.5
TABLE = "table.csv"

Grid = NDArray[np.float64]


class Hospital:
    """Images and a table below a prefix of a bucket.

    Args:
        client: Of the S3 server.
        bucket: Name of the bucket.
        prefix: Where the images are.
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._rows: list[dict[str, Any]] = []
        self.root = f"s3://{bucket}/{prefix}"

    @property
    def images(self) -> set[str]:
        """Names of all images that have arrived."""
        return {row["image"] for row in self._rows}

    def take_images(self, patients: Iterable[int], *, folder: str, is_blurred: bool = False) -> int:
        """Add an image of each patient, and their rows to the table; returns how many.

        Args:
            patients: Their numbers.
            folder: Of the detector.
            is_blurred: The detector is another one: less sharp, and darker.
        """
        before = len(self._rows)
        for number in patients:
            spec = patient(number)
            image = draw(spec)
            name = f"{folder}/{number:06d}.png"
            self._put(name, _png(_blurred(image) if is_blurred else image))
            self._rows.append(_row(name, spec))
        self._put(TABLE, pd.DataFrame(self._rows).to_csv(index=False).encode())
        return len(self._rows) - before

    def _put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=content)


def patient(number: int) -> ImageSpec:
    """Draw who a patient is, and what the image shows."""
    rng = np.random.default_rng([number, 1])
    return ImageSpec(
        findings=tuple(name for name in FINDINGS if rng.random() < SHARE),
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(20, 90)),
        view=str(rng.choice(["PA", "AP"])),
        patient_id=number,
    )


def draw(spec: ImageSpec) -> Grid:
    """Draw an image, (64, 64) in [0, 1], with findings larger than life."""
    image = draw_image(replace(spec, findings=()), SIZE_PX) / 255
    rows, columns = np.indices(image.shape)
    for name in spec.findings:
        row, column = FINDINGS[name]
        square = (rows - row) ** 2 + (columns - column) ** 2
        image += BRIGHTNESS * np.exp(-square / (2 * SPREAD_PX**2))
    return image


def _row(name: str, spec: ImageSpec) -> dict[str, Any]:
    about = {"image": name, "patient_id": f"p{spec.patient_id}"}
    people = {"view": spec.view, "sex": spec.sex, "age": spec.age}
    return {**about, **people, **{finding: int(finding in spec.findings) for finding in FINDINGS}}


def _blurred(image: Grid) -> Grid:
    return np.asarray(ndimage.gaussian_filter(image, 0.8) ** 1.4)


def _png(image: Grid) -> bytes:
    stream = io.BytesIO()
    pixels = np.clip(255 * image + 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
