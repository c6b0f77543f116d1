"""Settings of what is done with a trained model; those of training are in `cxrmodel.config`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cxrmodel.config import (
    DEVICE,
    DRIFT_FOLDER,
    MAX_SEED,
    PHANTOM_ROOT,
    SCORES_FOLDER,
    DataConfig,
    DataSetConfig,
    StoreConfig,
    TrackingConfig,
)
from cxrmodel.data.files.root import is_joint
from cxrmodel.places import normal_place, normal_store
from cxrmodel.settings import Section
from cxrmodel.storage.aliases import CHAMPION

Place = Annotated[str, AfterValidator(normal_place)]
Overlap = Literal["pixels", "near", "patients"]
MIN_LABELLED = 20  # that recalibration is tried with
NO_PHANTOMS = (
    f"`{PHANTOM_ROOT}` stands for synthetic images in a training alone. Give the folder that it "
    f"drew them in, <store.scratch>/{PHANTOM_ROOT}/<data.phantom_images>."
)


def _place_of_images(text: str) -> str:
    if text == PHANTOM_ROOT:
        raise ValueError(NO_PHANTOMS)
    # A training on several data sets promotes by a joint root, which has its one form already.
    return text if not text or is_joint(text) else normal_place(text)


class ImageRoot(Section):
    """Where the images are."""

    root: Annotated[str, AfterValidator(_place_of_images)] = ""
    """Folder or fsspec URL of the images; those at any depth below it count."""


class ScoreConfig(Section):
    """Score the images of a folder or bucket that are new, or have changed, since the last time."""

    bundle: str = CHAMPION
    """Folder, zip archive or URL of a bundle, or an alias in the store, such as `champion`."""

    data: ImageRoot = ImageRoot()

    out: Annotated[str, AfterValidator(normal_store)] | None = None
    """Folder or URL for the scores: Parquet files in a folder per bundle. Empty: the folder
    `_scores` of the store."""

    device: str = Field("auto", pattern=DEVICE)
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    store: StoreConfig = StoreConfig()

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if not self.data.root:
            raise ValueError("Give data.root, the folder or URL of the images.")
        return self

    @property
    def place(self) -> str:
        """Where the scores go."""
        return self.out or f"{self.store.root}/{SCORES_FOLDER}"


class ImagesAndPeople(DataSetConfig):
    """Where the images and the tables that tell whose they are."""

    root: Annotated[str, AfterValidator(_place_of_images)] = ""
    """Folder or URL that was scored, as `score` had it: its tables or DICOM tags say view, sex,
    age and patient of each image. Empty: nothing is known of them."""

    hash_patient_ids: bool = False
    """Replace patient ids by pseudonyms, as the training did: SHA-256 keyed by the secret in
    CXRMODEL_PATIENT_SALT."""


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no date. Give it as 2026-01-31 or 2026-01-31T08:00, in UTC."
        ) from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds")


class MonitorConfig(Section):
    """Tell whether the images that were scored last differ from those a model was validated on."""

    bundle: str = CHAMPION
    """Folder, zip archive or URL of a bundle, or an alias in the store, such as `champion`."""

    data: ImagesAndPeople = ImagesAndPeople()

    scores: Annotated[str, AfterValidator(normal_store)] | None = None
    """Folder or URL that `score` wrote to (its `out`). Empty: the folder `_scores` of the store."""

    newest: int = Field(1000, ge=1)
    """How many images the window has at most: those that were scored last."""

    since: Annotated[str, AfterValidator(_moment)] | None = None
    """Only images that were scored at this date or later, such as 2026-01-31, in UTC."""

    level: float = Field(0.05, ge=0.001, lt=1)
    """Share of windows without drift in which something may be called drift by chance."""

    store: StoreConfig = StoreConfig()

    @property
    def place_of_scores(self) -> str:
        """Where the scores are."""
        return self.scores or f"{self.store.root}/{SCORES_FOLDER}"

    @property
    def place(self) -> str:
        """Where pages and tables go."""
        return f"{self.store.root}/{DRIFT_FOLDER}"


class PromoteConfig(Section):
    """Give an alias to a bundle that is better on held-out images, or give it back."""

    challenger: str | None = None
    """Folder, zip archive or URL of the bundle that may become champion, or an alias."""

    alias: str = CHAMPION
    """The alias that it may get; the bundle that has it now is what it is compared with."""

    test: Place | None = None
    """Labelled test images: a CSV or Parquet file with `image`, `patient_id` and a column of 1, 0
    or nothing per label, such as `test_predictions.parquet` of a run's report. The images are
    below `data.root`, or beside the table where that is empty."""

    data: ImageRoot = ImageRoot()

    margin: float = Field(0.0, ge=0, lt=0.5)
    """By how much the lower bound of the gain in macro AUROC has to exceed 0."""

    guard: tuple[str, ...] = ()
    """Labels whose AUROC must not fall: the lower bound of its change is above `-tolerance`."""

    tolerance: float = Field(0.02, ge=0, lt=0.5)
    """Fall in AUROC of a guarded label that is accepted."""

    require_approval: bool = False
    """Wait for a person in Prefect's page before the alias changes."""

    rollback: bool = False
    """Give the alias back to the bundle that had it before."""

    who: str | None = None
    """Who does it, for the alias's history; empty: this user."""

    why: str | None = None
    """Why, for the alias's history; empty: the numbers say it."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the bootstrap."""

    device: str = Field("auto", pattern=DEVICE)
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    store: StoreConfig = StoreConfig()

    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _has_a_challenger_or_rolls_back(self) -> Self:
        if self.rollback == (self.challenger is not None):
            raise ValueError(
                "Give either challenger, a bundle that may become champion, or rollback, and not "
                "both."
            )
        return self


class EvaluateConfig(Section):
    """Judge a bundle on labelled images of another site, beside its own test images."""

    bundle: str = CHAMPION
    """Folder, zip archive or URL of a bundle, or an alias in the store, such as `champion`."""

    data: DataConfig = DataConfig()
    """The labelled images, as for a training."""

    out: Annotated[str, AfterValidator(normal_store)] | None = None
    """Folder or URL for the page and the numbers. Empty: `_evaluations/<bundle>/<data>` of the
    store, the two named by their fingerprints."""

    recalibrate: int | None = Field(None, ge=MIN_LABELLED)
    """Also say what so many labelled images of the site would gain, for new thresholds and a new
    scaling of the probabilities."""

    allow_overlap: tuple[Overlap, ...] = ()
    """Accept images of train or validation: those with the same `pixels`, with `near` copies of
    them, or of `patients` of the same id. Without, one such image ends the run."""

    leave_out_overlap: bool = False
    """Judge by the other images where some are of train or validation."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    """Seed of the bootstrap, and of the draws of `recalibrate`."""

    device: str = Field("auto", pattern=DEVICE)
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""

    store: StoreConfig = StoreConfig()

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.data == DataConfig():
            raise ValueError("Give data.root, the folder or URL of the site's images.")
        if self.data.is_synthetic:
            raise ValueError(NO_PHANTOMS)
        return self
