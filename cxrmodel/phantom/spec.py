"""What one synthetic film shows: the finding names and the description of a film."""

from dataclasses import dataclass

import numpy as np

from cxrmodel.data.datasets.labels import PATHOLOGIES

BOXED_FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Effusion": "Effusion",
    "Infiltration": "Infiltrate",
    "Mass": "Mass",
    "Nodule": "Nodule",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
"""The 8 pathologies that `BBox_List_2017.csv` locates, and its own spelling of each."""


@dataclass(frozen=True)
class FilmSpec:
    """One film to draw. Two equal specs give the same pixels.

    Raises:
        ValueError: If a field has a value that no film can have.
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
    """Fixes the body, and where the findings sit, over all films of a patient."""

    follow_up: int = 0
    """Number of the film within its patient; fixes positioning and exposure."""

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
        """Return the generator of a trait that all films of this patient share."""
        return np.random.default_rng([self.seed, self.patient_id, stream])

    def film_rng(self, stream: int) -> np.random.Generator:
        """Return the generator of a trait that belongs to this film only."""
        return np.random.default_rng([self.seed, self.patient_id, stream, 1 + self.follow_up])
