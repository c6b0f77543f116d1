"""The deployments: what can be started, with which settings, on which schedule."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any, get_args

from prefect import Flow
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
from cxrmodel.inference.use_config import (
    EvaluateConfig,
    ImageRoot,
    ImagesAndPeople,
    MonitorConfig,
    PromoteConfig,
    ScoreConfig,
)
from cxrmodel.sweep_config import SweepConfig
from deployments.pools import records_environment
from deployments.reconcile import found
from deployments.target import Target
from flows.evaluate import evaluate_bundle
from flows.main import train_pipeline
from flows.monitor import monitor_scores
from flows.promote import promote_bundle
from flows.score import score_images
from flows.sweep import sweep_settings

WEEKLY, HOURLY = "weekly", "hourly"
SCHEDULES = {
    WEEKLY: CronSchedule(cron="0 2 * * 0", timezone="UTC"),  # Sunday night
    HOURLY: CronSchedule(cron="0 * * * *", timezone="UTC"),
}
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
    """One deployment of a flow.

    Args:
        name: Its name below the flow's; the target's suffix is added.
        flow: The flow.
        config: The settings of the training whose store and data it shares.
        target: Where it runs.
        description: One sentence on what it is for.
        parameters: What the flow starts from.
        tags: Tags of its runs.
        schedule: When it runs by itself, once somebody has switched the schedule on: a key of
            `SCHEDULES`.
        without_gpu: It needs none.
    """

    def __init__(
        self,
        name: str,
        flow: Flow[..., Any],
        config: PipelineConfig,
        target: Target,
        description: str,
        *,
        parameters: dict[str, Any],
        tags: tuple[str, ...],
        schedule: str | None = None,
        without_gpu: bool = False,
    ) -> None:
        self._name = f"{name}-{target.suffix}" if target.suffix else name
        self.label = f"deployment {flow.name}/{self._name}"
        self._flow, self._target, self._schedule = flow, target, schedule
        self._description, self._tags = description, tags
        self._parameters = parameters
        self._job_variables: dict[str, Any] = {
            "env": job_environment(config, target),
            # Not in the pool: two versions may wait in one pool, for one GPU.
            **({"image": target.image} if target.image else {}),
            **(WITHOUT_GPU[target.pool_type] if without_gpu else {}),
        }

    def wanted(self) -> dict[str, Any]:
        """Return the fields as they should be."""
        module, step = self._flow.fn.__module__, {"directory": str(self._target.directory)}
        return {
            "version": version(),
            "description": f"{self._description}\n\n{inspect.getdoc(self._flow.fn)}",
            "tags": ["cxrmodel", *self._tags],
            "work_pool_name": self._target.pool,
            "parameters": self._parameters,
            "job_variables": self._job_variables,
            "entrypoint": f"{module.replace('.', '/')}.py:{self._flow.fn.__name__}",
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": step}],
            "parameter_openapi_schema": parameter_schema(self._flow).model_dump(mode="json"),
            "enforce_parameter_schema": True,
            "schedules": [SCHEDULES[self._schedule].cron] if self._schedule else [],
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
            flow_id=client.create_flow_from_name(self._flow.name),
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
        name = f"{self._flow.name}/{self._name}"
        return found(lambda: client.read_deployment_by_name(name))

    def _schedules(self, deployment: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
        if self._schedule is None:
            return []
        active = deployment is not None and any(entry.active for entry in deployment.schedules)
        schedule = SCHEDULES[self._schedule]
        return [DeploymentScheduleCreate(schedule=schedule, active=active, slug=self._schedule)]


def _cron(entry: Any) -> str | None:
    return getattr(entry.schedule, "cron", None)


def deployments(config: PipelineConfig, target: Target) -> list[Deployment]:
    """Return every deployment of a target: training, and what is done with the model."""
    training = {"config": config.model_dump(mode="json"), "refresh": []}
    weekly = {**training, "config": weekly_config(config).model_dump(mode="json")}
    smoke = {"config": smoke_config(config).model_dump(mode="json"), "refresh": [*get_args(Stage)]}
    device, store = config.runtime.device_here, config.store
    # Synthetic images and several data sets are no one place: a run has to name its own.
    one_place = not config.data.is_synthetic and not config.data.sources
    images = {"root": config.data.root if one_place else ""}
    rollback = PromoteConfig(device=device, store=store, rollback=True, tracking=config.tracking)
    promotion = {**rollback.model_dump(mode="json"), "data": images, "rollback": False}
    anywhere = ScoreConfig(data=ImageRoot(root="."), device=device, store=store)
    scoring = {**anywhere.model_dump(mode="json"), "data": images}
    fields = ImagesAndPeople.model_fields
    people = {name: getattr(config.data, name) for name in fields} if one_place else {}
    monitoring = MonitorConfig(data=ImagesAndPeople(**people), store=store)
    sweep = SweepConfig(base=config, settings={"as deployed": {}})
    no_site = DataConfig(root=".").model_dump(mode="json") | {"root": ""}  # a run names its own
    elsewhere = EvaluateConfig(data=DataConfig(root="."), device=device, store=store)
    evaluation = {**elsewhere.model_dump(mode="json"), "data": no_site}
    return [
        Deployment(
            "train", train_pipeline, config, target, "Trains on demand.",
            parameters=training, tags=("gpu",),
        ),
        Deployment(
            "train-weekly", train_pipeline, config, target,
            "Trains every Sunday at 02:00 UTC, once its schedule is switched on; a run whose data "
            "and settings have not changed is served from the cache. No patient moves to another "
            "part when the data grows: split.method is hash in place of patient.",
            parameters=weekly, tags=("gpu", WEEKLY), schedule=WEEKLY,
        ),
        Deployment(
            "smoke", train_pipeline, config, target,
            "Runs every stage on synthetic images on the CPU, never from the cache, in minutes.",
            parameters=smoke, tags=("cpu",), without_gpu=True,
        ),
        Deployment(
            "score", score_images, config, target,
            "Scores what is new every hour, once its schedule is switched on and a bundle has the "
            "alias champion.",
            parameters={"config": scoring}, tags=("gpu", HOURLY), schedule=HOURLY,
        ),
        Deployment(
            "monitor", monitor_scores, config, target,
            "Tells whether the images that were scored last have drifted; an automation starts it "
            "after each run of score.",
            parameters={"config": monitoring.model_dump(mode="json")}, tags=("cpu",),
            without_gpu=True,
        ),
        Deployment(
            "promote", promote_bundle, config, target,
            "Compares a challenger with the champion, and gives it the alias or not.",
            parameters={"config": promotion}, tags=("gpu",),
        ),
        Deployment(
            "evaluate", evaluate_bundle, config, target,
            "Judges the champion on labelled images of another site, beside its own test images.",
            parameters={"config": evaluation}, tags=("gpu",),
        ),
        Deployment(
            "sweep", sweep_settings, config, target,
            "Compares settings over several seeds; as it is deployed, one setting with three.",
            parameters={"config": sweep.model_dump(mode="json")}, tags=("gpu",),
        ),
    ]  # fmt: skip
