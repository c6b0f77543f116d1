"""Who is in the data set: patients, their follow-ups and what each image shows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cxrmodel.data.datasets.labels import PATHOLOGIES


@dataclass(frozen=True)
class ImageSpec:
    """One image to draw. Two equal specs give the same pixels.

    Raises:
        ValueError: If a field has a value that no image can have.
    """

    findings: tuple[str, ...] = ()
    """Names from `PATHOLOGIES`; empty for *no listed finding*."""

    sex: str = "M"
    """`M` or `F`."""

    age: int = 50
    """Years."""

    view: str = "PA"
    """`PA` (standing) or `AP` (lying, often portable)."""

    seed: int = 0
    """Seed of the data set."""

    patient_id: int = 1
    """Fixes the body, and where the findings sit, over all images of a patient."""

    follow_up: int = 0
    """Number of the image within its patient; fixes positioning and exposure."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.findings) - set(PATHOLOGIES))
        if unknown:
            raise ValueError(f"findings must be names of {list(PATHOLOGIES)}, got {unknown}")
        if self.sex not in ("M", "F"):
            raise ValueError(f"sex must be 'M' or 'F', got {self.sex!r}")
        if self.view not in ("PA", "AP"):
            raise ValueError(f"view must be 'PA' or 'AP', got {self.view!r}")
        for field in ("age", "seed", "patient_id", "follow_up"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be 0 or more, got {getattr(self, field)}")

    def body_rng(self, stream: int) -> np.random.Generator:
        """Return the generator of a trait that all images of this patient share."""
        return np.random.default_rng([self.seed, self.patient_id, stream])

    def image_rng(self, stream: int) -> np.random.Generator:
        """Return the generator of a trait that belongs to this image only."""
        return np.random.default_rng([self.seed, self.patient_id, stream, 1 + self.follow_up])


DECK = {
    "No Finding": 34,
    "Atelectasis": 3,
    "Cardiomegaly": 3,
    "Consolidation": 2,
    "Edema": 2,
    "Effusion": 3,
    "Emphysema": 2,
    "Fibrosis": 2,
    "Hernia": 2,
    "Infiltration": 4,
    "Mass": 2,
    "Nodule": 3,
    "Pleural_Thickening": 2,
    "Pneumonia": 2,
    "Pneumothorax": 2,
}
"""Main findings of the next 68 patients: a shuffled deck, so that rare ones are always there.

NIH's prevalence, flattened: 0.2 % of its images show a hernia, and a small set would have none.
"""

COMPANIONS = {
    "Cardiomegaly": (("Effusion", 0.3), ("Edema", 0.25)),
    "Consolidation": (("Effusion", 0.25), ("Pneumonia", 0.15)),
    "Edema": (("Cardiomegaly", 0.35), ("Effusion", 0.35), ("Infiltration", 0.15)),
    "Effusion": (("Atelectasis", 0.35), ("Infiltration", 0.15), ("Mass", 0.08)),
    "Emphysema": (("Pneumothorax", 0.2), ("Nodule", 0.1), ("Fibrosis", 0.08)),
    "Fibrosis": (("Pleural_Thickening", 0.3),),
    "Hernia": (("Atelectasis", 0.2),),
    "Infiltration": (("Atelectasis", 0.15), ("Pneumonia", 0.15)),
    "Mass": (("Nodule", 0.25), ("Effusion", 0.15)),
    "Pneumonia": (("Infiltration", 0.3), ("Effusion", 0.15)),
    "Pneumothorax": (("Atelectasis", 0.2), ("Pleural_Thickening", 0.1)),
}
"""Chance of a second finding beside a main one."""

LASTING = frozenset(("Cardiomegaly", "Emphysema", "Fibrosis", "Hernia", "Pleural_Thickening"))
"""Findings that a later image shows as well; the others may clear."""

MALE_SHARE = 0.56
BIRTHDAY_SHARE = 0.35
STAY_SHARE = 0.75

IMAGES_PER_PATIENT = (0.54, 0.20, 0.11, 0.07, 0.05, 0.03)
"""Share of patients with 1, 2, ... 6 images."""

RGBA_EVERY = 50
"""One image in 50 is stored as RGBA, from the first on."""

MISSING_EVERY = 50
"""One row in 50 has no image, from the second on."""


@dataclass(frozen=True)
class Entry:
    """One row of the data set's CSV."""

    spec: ImageSpec
    rgba: bool
    missing: bool

    @property
    def file_name(self) -> str:
        """Name of the image, as NIH builds it."""
        return f"{self.spec.patient_id:08d}_{self.spec.follow_up:03d}.png"

    @property
    def labels(self) -> str:
        """Findings as NIH joins them."""
        return "|".join(self.spec.findings) or "No Finding"


def sample_entries(num_images: int, seed: int) -> list[Entry]:
    """Draw the rows of a data set.

    A larger set of the same seed begins with the rows of a smaller one.

    Args:
        num_images: Rows that have an image.
        seed: Seed of the data set.

    Returns:
        Rows by patient and follow-up, and at least one of them without an image.
    """
    entries: list[Entry] = []
    written = missing = 0
    for row, spec in enumerate(_images(seed)):
        lost = row % MISSING_EVERY == 1
        if written == num_images and not (lost and missing == 0):
            break
        entries.append(Entry(spec, rgba=row % RGBA_EVERY == 0, missing=lost))
        missing += lost
        written += not lost
    return entries


def _images(seed: int) -> Iterator[ImageSpec]:
    """Yield the images of patient 1, then of patient 2, and so on without end."""
    patient_id = 0
    while True:
        deck = [finding for finding, cards in DECK.items() for _ in range(cards)]
        order = np.random.default_rng([seed, patient_id, 99]).permutation(len(deck))
        for card in order:
            patient_id += 1
            yield from _patient(seed, patient_id, deck[int(card)])


def _patient(seed: int, patient_id: int, main: str) -> Iterator[ImageSpec]:
    rng = np.random.default_rng([seed, patient_id, 98])
    sick = main != "No Finding"
    sex = "M" if rng.random() < MALE_SHARE else "F"
    age = int(np.clip(rng.normal(54 if sick else 45, 16), 3, 92))
    num_images = int(rng.choice(len(IMAGES_PER_PATIENT), p=IMAGES_PER_PATIENT)) + 1
    # Images of sicker patients are more often taken lying.
    lying = 0.55 if main in ("Edema", "Effusion", "Consolidation", "Pneumonia") else 0.38
    found = _onset(main, rng)
    for follow_up in range(num_images):
        view = "AP" if rng.random() < lying else "PA"
        yield ImageSpec(tuple(sorted(found)), sex, age, view, seed, patient_id, follow_up)
        found = _progress(found, rng)
        age += int(rng.random() < BIRTHDAY_SHARE)


def _onset(main: str, rng: np.random.Generator) -> set[str]:
    if main == "No Finding":
        return set()
    return {main} | {name for name, chance in COMPANIONS.get(main, ()) if rng.random() < chance}


def _progress(found: set[str], rng: np.random.Generator) -> set[str]:
    """Return what the next image of a patient shows: most of it stays, a little comes."""
    kept = {name for name in sorted(found) if name in LASTING or rng.random() < STAY_SHARE}
    if rng.random() < (0.18 if found else 0.10):
        kept.add(str(rng.choice([name for name in PATHOLOGIES if name != "Hernia"])))
    return set(sorted(kept)[:4])
