"""Where runs are to run: the kind of machine, the image, the environment of a job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cxrmodel.config import PHANTOM_ROOT, PipelineConfig, SourceConfig
from cxrmodel.places import absolute, is_folder

PROJECT = Path(__file__).parents[1]
PoolType = Literal["process", "docker", "kubernetes"]
IMAGE_DIRECTORY = Path("/app")
SECRET_WORDS = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY", "AUTH_STRING")


def _without_secrets(env: dict[str, str]) -> dict[str, str]:
    for name in env:
        if any(word in name.upper() for word in SECRET_WORDS):
            raise ValueError(
                f"{name} looks like a secret, and a job's environment is shown to everybody who "
                "reaches the API. Give the worker's machine a role, or mount a credentials file"
            )
    return env


class Target(BaseModel):
    """A work pool and what its jobs need."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pool_type: PoolType
    """What runs a job: a process of the worker, a container, or a Kubernetes Job."""

    pool: str = "cxr-gpu"
    """Name of the work pool."""

    suffix: str = Field("", pattern=r"^[\w.-]*$")
    """End of the deployments' names, to keep a version beside another."""

    image: str | None = None
    """Image of a job, for docker and kubernetes."""

    env: Annotated[dict[str, str], AfterValidator(_without_secrets)] = {}
    """More environment variables of a job, such as AWS_ENDPOINT_URL; never secrets."""

    volumes: tuple[str, ...] = ()
    """More volumes of a docker job, such as `/data/images:/data/images:ro`."""

    outputs_claim: str | None = None
    """Persistent volume claim of a Kubernetes job's /app/outputs, to keep checkpoints."""

    notify: str | None = None
    """Saved notification block, such as `slack-webhook/team`, notified of failures and reports."""

    @model_validator(mode="after")
    def _image_where_needed(self) -> Self:
        if (self.image is None) != (self.pool_type == "process"):
            wanted = "takes no image" if self.pool_type == "process" else "needs an image"
            raise ValueError(f"--pool-type {self.pool_type} {wanted}: see --image")
        if self.volumes and self.pool_type != "docker":
            raise ValueError(f"--volume is for docker, not for --pool-type {self.pool_type}")
        if self.outputs_claim and self.pool_type != "kubernetes":
            raise ValueError(
                f"--outputs-claim is for kubernetes, not for --pool-type {self.pool_type}"
            )
        return self

    @property
    def directory(self) -> Path:
        """Where a job finds the code."""
        return PROJECT if self.pool_type == "process" else IMAGE_DIRECTORY


def _placed_source(source: SourceConfig, here: Path) -> SourceConfig:
    csv = source.csv and absolute(source.csv, here)
    return source.model_copy(update={"root": absolute(source.root, here), "csv": csv})


def placed(config: PipelineConfig, target: Target) -> PipelineConfig:
    """Return the settings with local folders made absolute, as a job of the target sees them.

    Raises:
        ValueError: The store would be a folder inside a Kubernetes pod.
    """
    data, store = config.data, config.store
    if target.pool_type == "kubernetes" and is_folder(store.root):
        raise ValueError(
            f"--store.root {store.root} would be a folder inside each pod. Give a URL that every "
            "pod reaches, such as s3://bucket/cxr"
        )
    here = target.directory
    root = data.root if data.root == PHANTOM_ROOT else absolute(data.root, here)
    csv, table = (place and absolute(place, here) for place in (data.csv, config.split.file))
    sources = tuple(_placed_source(source, here) for source in data.sources)
    places = {"root": absolute(store.root, here), "scratch": absolute(store.scratch, here)}
    sections = {
        "data": data.model_copy(update={"root": root, "csv": csv, "sources": sources}),
        "split": config.split.model_copy(update={"file": table}),
        "store": store.model_copy(update=places),
    }
    return config.model_copy(update=sections)
