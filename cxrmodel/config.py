"""Every setting, one frozen section per stage; the defaults are the notebook's exact method."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from cxrmodel.places import ALIASES_FOLDER, lies_in, normal_folder, normal_place, normal_store
from cxrmodel.settings import KEY_EXEMPT, Section, not_one_of

Stage = Literal[
    "index", "images", "split", "vae", "latents", "classifier", "baselines", "pca_network",
    "report", "bundle",
]  # fmt: skip
Precision = Literal["float32", "bfloat16", "auto"]

DatasetName = Literal[
    "auto", "table", "nih", "chexpert", "mimic-cxr", "padchest", "vindr-cxr", "rsna-pneumonia",
    "siim-acr", "brax", "chexpert-plus",
]  # fmt: skip
"""Values of `data.dataset`."""

PHANTOM_ROOT = "phantom"
ALL_VIEWS = "all"
"""Value of `data.views`: lateral views too."""

EACH_IMAGE = "image"
"""Value of `data.patient_from`: each image is of another patient."""
SIDE_STEP = 64  # the network halves a side six times
MAX_SEED = 2**32 - 1  # of NumPy and scikit-learn
MAX_SOURCE_CHARS = 40
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")  # and other numbers
DEVICE = r"^(auto|cpu|cuda(:\d+)?|mps)$"

RECORDS_FOLDER = "_results"
CHECKPOINTS_FOLDER = "_checkpoints"
SCORES_FOLDER, DRIFT_FOLDER = "_scores", "_drift"
SWEEPS_FOLDER, EVALUATIONS_FOLDER = "_sweeps", "_evaluations"
STORE_FOLDERS = (
    *get_args(Stage), RECORDS_FOLDER, CHECKPOINTS_FOLDER, ALIASES_FOLDER, SCORES_FOLDER,
    DRIFT_FOLDER, SWEEPS_FOLDER, EVALUATIONS_FOLDER,
)  # fmt: skip
"""Folders that the pipeline makes below the store's root; no stage begins with an underscore."""

SCRATCH_FOLDERS = ("artifacts", "drafts", "images", "ray", "sources", "work")
"""Folders that the pipeline makes in scratch and that `gc` cleans."""


def _patient_rule(text: str) -> str:
    if text in ("", EACH_IMAGE):
        return text
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}.") from error
    if groups != 1:
        raise ValueError(
            f"{text!r} has {groups} groups and needs one: put the part of the path that names the "
            "patient into brackets, as in (patient[0-9]+)."
        )
    return text


def _known_device(name: str) -> str:
    if re.fullmatch(r"gpu(:\d+)?", name.lower()):
        raise ValueError(f"{name!r} is called {name.lower().replace('gpu', 'cuda')!r} here.")
    if not re.fullmatch(DEVICE, name):
        raise ValueError(not_one_of(name, DEVICES))
    return name


def _tracking_server(text: str) -> str:
    if not re.match(r"https?://[^/]", text):
        raise ValueError("It is no URL of a server, such as https://mlflow.example.org.")
    if "@" in text.split("/")[2]:
        raise ValueError(
            "It must not carry credentials. Set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD in the environment."
        )
    return normal_place(text)


class ColumnsConfig(Section):
    """Which column of a table says what (data.dataset `table`); empty: guessed."""

    image: str = ""
    """Name of the image's file, or its path."""

    patient_id: str = ""
    """Whose image it is."""

    view: str = ""
    """AP, PA or lateral, in the usual spellings."""

    sex: str = ""
    """F or M, or female or male."""

    age: str = ""
    """In years, or as DICOM writes it."""

    labels: tuple[str, ...] = ()
    """Columns of 1, 0 or nothing, one per label; or one column with the names of findings."""

    separator: str = Field("", max_length=1)
    """What stands between names in that one column; empty: `|`, `;` or a comma, as found."""


class DataSetConfig(Section):
    """Where one data set is, and how to read it."""

    root: Annotated[str, KEY_EXEMPT, AfterValidator(normal_place)]
    """Folder or fsspec URL of the data set."""

    csv: Annotated[Annotated[str, AfterValidator(normal_place)] | None, KEY_EXEMPT] = None
    """Path or URL of the table, or of a folder with the tables, where they are not below the
    root."""

    images: Annotated[str, KEY_EXEMPT] = ""
    """Folder of the images below the root, or a glob such as `images_*`; empty: the whole root."""

    dataset: DatasetName = "auto"
    """Which data set it is; `auto`: the one whose tables are there; `table`: any table of images,
    whose columns are in `data.columns` or guessed, or a folder of images without one."""

    columns: ColumnsConfig = ColumnsConfig()
    """Which column of the table says what, where data.dataset is `table`."""

    patient_from: Annotated[str, AfterValidator(_patient_rule)] = ""
    """How to know the patient, where neither a column nor DICOM's tag says it: a regular expression
    with one group, found in the path below the root, as in `(patient[0-9]+)`; or `image`: each
    image is of another patient, and where that is wrong, train and test share patients."""


def _name_of_source(name: str) -> str:
    if any(mark in name for mark in "/\\:") or not name.isprintable() or name != name.strip():
        raise ValueError(
            f"{name!r} cannot name a data set: names of images begin with it. Use letters, digits, "
            "blanks and dashes."
        )
    if len(name) > MAX_SOURCE_CHARS:
        raise ValueError(f"It has {len(name)} characters, and may have {MAX_SOURCE_CHARS}.")
    return name


class SourceConfig(DataSetConfig):
    """One data set among several in a run."""

    name: Annotated[str, KEY_EXEMPT, AfterValidator(_name_of_source)] = ""
    """What to call it in the index and in the report; empty: what it is, as `nih` or `table`, with
    a number from the second of its kind on."""


class DataConfig(DataSetConfig):
    """Where the data set is, and how much of it to use."""

    root: Annotated[str, KEY_EXEMPT, AfterValidator(normal_place)] = PHANTOM_ROOT
    """Folder or fsspec URL of the data set; `phantom` generates synthetic chest
    X-rays."""

    sources: tuple[SourceConfig, ...] = ()
    """Several data sets in one run, instead of the settings above: a list in the YAML file, each
    with root and where needed name, csv, images, dataset, columns and patient_from."""

    views: Literal["frontal", "all"] = "frontal"
    """Which images to use: frontal ones, or lateral, oblique and decubitus views as well."""

    readers: Literal["majority", "any"] = "majority"
    """How several readers of one image (VinDr-CXR) become one label."""

    uncertain: Literal["negative", "positive", "unknown", "exclude"] = "negative"
    """What CheXpert's uncertain labels (-1) become; `unknown` takes no part in training and
    scores, `exclude` leaves such images out."""

    hash_patient_ids: bool = False
    """Replace patient ids by pseudonyms: SHA-256 keyed by the secret in CXRMODEL_PATIENT_SALT."""

    fraction: float = Field(1.0, gt=0, le=1)
    """Share of the images to use, drawn stratified on any abnormality."""

    seed: int = Field(42, ge=0, le=MAX_SEED)
    """Seed of that draw."""

    phantom_images: Annotated[int, KEY_EXEMPT, Field(ge=1)] = 240
    """Number of synthetic images, where the root is `phantom`."""

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are to be generated."""
        return not self.sources and self.root == PHANTOM_ROOT

    @property
    def roots(self) -> tuple[str, ...]:
        """Where the data sets are."""
        return tuple(source.root for source in self.sources) or (self.root,)

    def of_sources(self) -> list[DataConfig]:
        """Return the settings of each data set of `sources`, as of a run with it alone."""
        names = DataSetConfig.model_fields
        return [
            self.model_copy(update={"sources": (), **{name: getattr(x, name) for name in names}})
            for x in self.sources
        ]

    def places(self) -> dict[str, str]:
        """Return where the data sets are, by the name of the setting, synthetic images left out."""
        named = {f"data.sources[{number}].root": x.root for number, x in enumerate(self.sources)}
        named = named or {"data.root": self.root}
        return {name: place for name, place in named.items() if place != PHANTOM_ROOT}

    @model_validator(mode="after")
    def _one_way_to_name_data(self) -> Self:
        fields = type(self).model_fields
        alone = [x for x in DataSetConfig.model_fields if getattr(self, x) != fields[x].default]
        if self.sources and alone:
            raise ValueError(
                f"data.sources lists the data sets, and data.{alone[0]} is set too. Move that into "
                "the list, to the data set that it is meant for."
            )
        names = [source.name for source in self.sources if source.name]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"data.sources calls two data sets {name!r}. Give each its own name."
                )
        if any(source.root == PHANTOM_ROOT for source in self.sources):
            raise ValueError(
                "data.sources lists `phantom`, and synthetic images are not mixed with others: set "
                "data.root to it alone."
            )
        return self


class ImagesConfig(Section):
    """How a file becomes a square of pixels."""

    size: int = Field(1024, ge=SIDE_STEP, le=4096, multiple_of=SIDE_STEP)
    """Side of the square in pixels; a multiple of 64, for six halvings."""

    fit: Literal["crop", "pad", "resize"] = "crop"
    """How another shape becomes square: `crop` keeps the centre square, `pad` adds black borders,
    `resize` stretches; the square is then scaled to `size`."""

    max_megapixels: float = Field(64, gt=0)
    """Larger images go to the ledger unread."""

    cache: Annotated[bool, KEY_EXEMPT] = True
    """Keep decoded pixels in one memory map in scratch; off: decode on the fly."""


class SplitConfig(Section):
    """How images are divided into train, validation and test, 70 / 15 / 15."""

    method: Literal["patient", "hash", "file", "official", "rows"] = "patient"
    """`patient`: disjoint by patient and stratified; `hash`: a patient's part follows from seed
    and id, so none moves when the data set grows; `file`: the table of `split.file`; `official`:
    the data set's own parts; `rows`: the notebook's, which leaks patients."""

    file: Annotated[Annotated[str, AfterValidator(normal_place)] | None, KEY_EXEMPT] = None
    """Path or URL of a CSV or Parquet table with the part of each image or patient, for `file`."""

    seed: int = Field(42, ge=0, le=MAX_SEED)
    """Seed of the draw, or of the hash."""

    @model_validator(mode="after")
    def _file_goes_with_its_method(self) -> Self:
        if self.method == "file" and self.file is None:
            raise ValueError(
                "split.method is 'file', and split.file is not given. Set it to a table with a "
                "column of images or patients and one of parts."
            )
        if self.method != "file" and self.file is not None:
            raise ValueError(
                f"split.file is given, and split.method is {self.method!r}, which does not read "
                "it. Set split.method to 'file', or leave split.file out."
            )
        return self


class VAEConfig(Section):
    """Loss and training of the variational autoencoder."""

    latent_dim: int = Field(64, gt=0)
    """Dimensions of the latent vector z."""

    objective: str = "l1_kl"
    """What training minimises, by name; `l1_kl` is the mean absolute error plus the weighted KL."""

    kl_weight: float = Field(1e-3, ge=0)
    """Weight of KL(q(z|x) || N(0, I)), averaged over dimensions and batch."""

    epochs: int = Field(10, gt=0)
    """Passes over the train images."""

    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = 1
    """Images per step; `auto`: as many as the device has room for, a power of two up to 64, with
    `lr` multiplied by their square root."""

    lr: float = Field(1e-4, gt=0)
    """Learning rate of Adam."""

    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine`: rise to `lr` within 5 % of the steps, then fall along half a cosine to zero."""

    weight_decay: float = Field(0, ge=0)
    """Decoupled weight decay, as in AdamW (Loshchilov and Hutter, 2019); 0 gives Adam."""

    group_norm: bool = False
    """Group normalisation after the convolutions of 64 channels and more."""

    mean_image: bool = False
    """Learn a bias per pixel before the sigmoid, starting from the mean train image."""

    augmentation: float = Field(0, ge=0, le=4)
    """Strength of random changes of position and exposure, never mirrored; 1 is mild, 0 none."""

    max_grad_norm: float | None = Field(None, gt=0)
    """Gradients are cut to this norm; a step whose gradient is not finite is skipped and counted.
    Empty: neither, and a loss that is not finite ends the training."""

    precision: Precision = "float32"
    """Arithmetic of the network; `auto` is bfloat16 where the hardware has it."""

    gradient_checkpointing: Annotated[bool, KEY_EXEMPT] = False
    """Compute most activations again in the backward pass: less memory, more time, same weights."""

    weights: Literal["last", "best"] = "last"
    """Which epoch's weights to publish: the last, or the best by validation loss."""

    seed: int = Field(42, ge=0, le=MAX_SEED)
    """Seed of the initial weights, the order of images and the sampling of z."""

    checkpoint_every_s: Annotated[float, KEY_EXEMPT, Field(gt=0)] = 300
    """Seconds between checkpoints within an epoch."""


class LatentsConfig(Section):
    """Encoding of every image with the trained autoencoder."""

    batch_size: int = Field(1, gt=0)
    """Images per batch."""

    precision: Precision = "float32"
    """Arithmetic of the network; `auto` is bfloat16 where the hardware has it."""


class ClassifierConfig(Section):
    """The multi-label network on the latents."""

    epochs: int = Field(20, gt=0)
    """Passes over the train latents, at most."""

    batch_size: int = Field(64, gt=0)
    """Latents per step."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of Adam."""

    weight_decay: float = Field(0, ge=0)
    """Decoupled weight decay, as in AdamW (Loshchilov and Hutter, 2019); 0 gives Adam."""

    loss: Literal["bce", "balanced", "asymmetric"] = "bce"
    """Cross-entropy; `balanced`: positives weigh negatives over positives; `asymmetric`: easy
    negatives count little (Ridnik et al., 2021). The last two are recalibrated on validation."""

    standardize: bool = False
    """Scale each latent dimension to zero mean and unit variance, fitted on train."""

    weights: Literal["last", "best", "best_map"] = "best"
    """Which epoch's weights to publish: the last, the best by validation loss, or the best by
    validation mean average precision."""

    patience: int | None = Field(None, gt=0)
    """Stop after this many epochs without a better one; empty: train all epochs."""

    seed: int = Field(42, ge=0, le=MAX_SEED)
    """Seed of the initial weights and of the order of rows."""

    @model_validator(mode="after")
    def _patience_needs_best_weights(self) -> Self:
        if self.patience is not None and self.weights == "last":
            raise ValueError(
                "classifier.patience waits for a better epoch, and classifier.weights is 'last'. "
                "Set that to 'best' or 'best_map', or leave patience empty."
            )
        return self


class ReportConfig(Section):
    """What the report shows."""

    num_reconstructions: int = Field(6, gt=0, le=24)
    """Test images shown beside their reconstruction and error map, drawn at random."""

    tsne_points: int = Field(10_000, ge=50, le=10_000)
    """Latents in the t-SNE, at most."""

    tsne_perplexity: float = Field(30, gt=0)
    """Perplexity of the t-SNE, lowered for fewer images than it needs."""

    seed: int = Field(42, ge=0, le=MAX_SEED)
    """Seed of the drawn examples and of the t-SNE."""


class StoreConfig(Section):
    """Where results are kept."""

    root: Annotated[str, AfterValidator(normal_store)] = "outputs/store"
    """Folder or fsspec URL that keeps every artifact and cache record."""

    scratch: Annotated[str, AfterValidator(normal_folder)] = "outputs/scratch"
    """Node-local folder for decoded pixels and checkpoints; may be emptied between runs."""


class RuntimeConfig(Section):
    """The machine; nothing here changes a result's meaning."""

    device: Annotated[
        str, AfterValidator(_known_device), Field(json_schema_extra={"pattern": DEVICE})
    ] = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:N` or `mps`; with Ray `auto`, `cpu` or `cuda`."""

    num_workers: int | None = Field(None, gt=0)
    """Threads that read and decode images; empty: one per core, or eight where images come
    over a network."""

    num_threads: int | None = Field(None, gt=0)
    """Threads of one computation on a CPU; empty: OMP_NUM_THREADS, or one per core that this
    process may use, by affinity and a container's quota, and fewer where other processes keep
    these cores busy, as each stage finds out at its start."""

    ray_address: str | None = None
    """Train and encode with several processes of a Ray cluster: `local` starts one here, `auto`
    joins this machine's, `host:port` another. Needs the `ray` extra; empty: this process alone."""

    ray_workers: int | None = Field(None, gt=0)
    """Processes there; empty: one per GPU, or one per machine where there is none."""

    @property
    def device_here(self) -> str:
        """Device of what this process computes itself: with Ray the best that it has."""
        return "auto" if self.ray_address and self.device != "cpu" else self.device

    @model_validator(mode="after")
    def _ray_chooses_among_gpus(self) -> Self:
        if self.ray_address and self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"runtime.device is {self.device!r}, and with runtime.ray_address Ray gives each "
                "worker its device. Set runtime.device to 'auto', 'cpu' or 'cuda'."
            )
        return self


class TrackingConfig(Section):
    """An MLflow server that is told of runs and models; no result depends on it."""

    mlflow_uri: Annotated[str, AfterValidator(_tracking_server)] | None = None
    """URL of the server, such as https://mlflow.example.org. Needs the `mlflow` extra; its
    credentials are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment."""

    name: str = Field("cxrmodel", pattern=r"^[\w.-]+$", max_length=60)
    """Name of the experiment, and of the registered model."""


class PipelineConfig(Section):
    """All settings of a run."""

    preset: Annotated[str, KEY_EXEMPT, Field(pattern=r"^[\w.-]+$", max_length=40)] = "default"
    """Name of this set of settings; part of the name of a run."""

    data: DataConfig = DataConfig()
    images: ImagesConfig = ImagesConfig()
    split: SplitConfig = SplitConfig()
    vae: VAEConfig = VAEConfig()
    latents: LatentsConfig = LatentsConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    report: ReportConfig = ReportConfig()
    store: Annotated[StoreConfig, KEY_EXEMPT] = StoreConfig()
    runtime: Annotated[RuntimeConfig, KEY_EXEMPT] = RuntimeConfig()
    tracking: Annotated[TrackingConfig, KEY_EXEMPT] = TrackingConfig()

    @model_validator(mode="after")
    def _places_lie_apart(self) -> Self:
        data, root, scratch = self.data.places(), self.store.root, self.store.scratch
        for owner, images in data.items():
            for name, place in (("store.root", root), ("store.scratch", scratch)):
                if lies_in(place, images):
                    raise ValueError(
                        f"{name} {place} lies in {owner} {images}: what is written there would be "
                        "read as images. Choose a folder outside it."
                    )
        if lies_in(root, scratch) and lies_in(scratch, root):
            raise ValueError(
                f"store.root and store.scratch are both {root}: what may be emptied must not hold "
                "results. Choose another store.scratch."
            )
        places = {**data, "store.root": root, "store.scratch": scratch}
        for owner, folders in (("store.root", STORE_FOLDERS), ("store.scratch", SCRATCH_FOLDERS)):
            for name, place in places.items():
                taken = next((x for x in folders if lies_in(place, f"{places[owner]}/{x}")), None)
                if name != owner and taken:
                    raise ValueError(
                        f"{name} {place} lies in {places[owner]}/{taken}, which is {owner}'s own "
                        "folder and may be cleaned. Choose another place."
                    )
        return self
