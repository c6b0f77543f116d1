"""The deployments: what can be started, with which settings, on which schedule."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any, get_args

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema

from cxrmodel.code_digest import revision
from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    LatentsConfig,
    PipelineConfig,
    ReportConfig,
    RuntimeConfig,
    Stage,
    VAEConfig,
)
from deployments.pools import records_environment
from deployments.reconcile import found
from deployments.target import Target
from flows.main import train_pipeline

ENTRYPOINT = "flows/main.py:train_pipeline"
WEEKLY = "weekly"
SUNDAY_NIGHT = CronSchedule(cron="0 2 * * 0", timezone="UTC")
HEARTBEAT_S = 60
CLIENT_RETRIES = (
    8  # 2 + 4 + 8 + … + 256 s: a change of state outlives some minutes without a server
)
WITHOUT_GPU: dict[str, dict[str, Any]] = {
    "process": {},
    "docker": {"device_requests": [], "shm_size": "2g"},
    "kubernetes": {"gpu_count": 0, "cpu": "2", "memory": "8Gi", "shm_size": "2Gi"},
}


def version() -> str:
    """Return the package's version and the code's revision, such as `0.1.0+1a2b3c4`."""
    return f"{importlib.metadata.version('cxrmodel')}+{revision()}"


def job_environment(config: PipelineConfig, target: Target) -> dict[str, str]:
    """Return the environment of a job: the records beside the store, the library's log lines."""
    # Without its own home a container gets that of the worker, a folder it does not have.
    home = {} if target.pool_type == "process" else {"PREFECT_HOME": "/tmp/prefect"}  # noqa: S108
    return {
        **home,
        "DO_NOT_TRACK": "1",
        "PREFECT_CLIENT_MAX_RETRIES": str(CLIENT_RETRIES),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "cxrmodel,tasks",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # never a pickle, which runs when it is read
        **records_environment(config.store.root),
        **target.env,
    }


def smoke_config(config: PipelineConfig) -> PipelineConfig:
    """Return settings for a run on few small synthetic images, on the CPU, in the same store."""
    return PipelineConfig(
        preset="smoke",
        data=DataConfig(phantom_images=90),
        images=ImagesConfig(size=128),
        vae=VAEConfig(epochs=1, batch_size=8, lr=1e-3),
        latents=LatentsConfig(batch_size=16),
        classifier=ClassifierConfig(epochs=3),
        report=ReportConfig(num_reconstructions=2, tsne_points=50),
        store=config.store,
        runtime=RuntimeConfig(device="cpu"),
    )


def weekly_config(config: PipelineConfig) -> PipelineConfig:
    """Return settings for data that grows: `hash` in place of `patient`, which moves patients."""
    if config.split.method != "patient":
        return config
    return config.model_copy(update={"split": config.split.model_copy(update={"method": "hash"})})


class Deployment:
    """One deployment of the pipeline's flow.

    Args:
        name: Its name below the flow's; the target's suffix is added.
        config: The settings it starts from.
        target: Where it runs.
        description: One sentence on what it is for.
        tags: Tags of its runs.
        refresh: Stages that run again even where their result is cached.
        schedule: When it runs by itself, once somebody has switched the schedule on.
    """

    def __init__(
        self,
        name: str,
        config: PipelineConfig,
        target: Target,
        description: str,
        *,
        tags: tuple[str, ...],
        refresh: tuple[Stage, ...] = (),
        schedule: CronSchedule | None = None,
        without_gpu: bool = False,
    ) -> None:
        self._name = f"{name}-{target.suffix}" if target.suffix else name
        self.label = f"deployment {train_pipeline.name}/{self._name}"
        self._target, self._schedule = target, schedule
        self._description, self._tags = description, tags
        self._parameters = {"config": config.model_dump(mode="json"), "refresh": list(refresh)}
        self._job_variables: dict[str, Any] = {
            "env": job_environment(config, target),
            # Not in the pool: two versions may wait in one pool, for one GPU.
            **({"image": target.image} if target.image else {}),
            **(WITHOUT_GPU[target.pool_type] if without_gpu else {}),
        }

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        step = {"directory": str(self._target.directory)}
        return {
            "version": version(),
            "description": f"{self._description}\n\n{inspect.getdoc(train_pipeline.fn)}",
            "tags": ["cxrmodel", *self._tags],
            "work_pool_name": self._target.pool,
            "parameters": self._parameters,
            "job_variables": self._job_variables,
            "entrypoint": ENTRYPOINT,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": step}],
            "parameter_openapi_schema": parameter_schema(train_pipeline).model_dump(mode="json"),
            "enforce_parameter_schema": True,
            "schedules": [self._schedule.cron] if self._schedule else [],
        }

    def current(self, client: SyncPrefectClient) -> dict[str, Any] | None:
        """Return the same fields as the server has them, or None."""
        deployment = self._read(client)
        if deployment is None:
            return None
        fields = {name: getattr(deployment, name) for name in self.wanted()}
        return {**fields, "schedules": [_cron(entry) for entry in deployment.schedules]}

    def write(self, client: SyncPrefectClient) -> None:
        """Create or update the deployment; what somebody paused or switched on stays so."""
        deployment = self._read(client)
        client.create_deployment(
            flow_id=client.create_flow_from_name(train_pipeline.name),
            name=self._name,
            paused=deployment.paused if deployment else False,
            **{**self.wanted(), "schedules": self._schedules(deployment)},
        )

    def delete(self, client: SyncPrefectClient) -> None:
        """Remove the deployment; its runs stay in the history."""
        deployment = self._read(client)
        if deployment is not None:
            client.delete_deployment(deployment.id)

    def _read(self, client: SyncPrefectClient) -> DeploymentResponse | None:
        name = f"{train_pipeline.name}/{self._name}"
        return found(lambda: client.read_deployment_by_name(name))

    def _schedules(self, deployment: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
        if self._schedule is None:
            return []
        active = deployment is not None and any(entry.active for entry in deployment.schedules)
        return [DeploymentScheduleCreate(schedule=self._schedule, active=active, slug=WEEKLY)]


def _cron(entry: Any) -> str | None:
    return getattr(entry.schedule, "cron", None)


def deployments(config: PipelineConfig, target: Target) -> list[Deployment]:
    """Return every deployment of the pipeline on a target."""
    return [
        Deployment("train", config, target, "Trains on demand.", tags=("gpu",)),
        Deployment(
            "train-weekly",
            weekly_config(config),
            target,
            "Trains every Sunday at 02:00 UTC, once its schedule is switched on; a run whose data "
            "and settings have not changed is served from the cache. No patient moves to another "
            "part when the data grows: split.method is hash in place of patient.",
            tags=("gpu", WEEKLY),
            schedule=SUNDAY_NIGHT,
        ),
        Deployment(
            "smoke",
            smoke_config(config),
            target,
            "Runs every stage on synthetic images on the CPU, never from the cache, in minutes.",
            tags=("cpu",),
            refresh=get_args(Stage),
            without_gpu=True,
        ),
    ]
