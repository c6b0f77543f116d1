"""What the templates of the work pool become: rendered by Prefect's own workers, then looked at."""

import asyncio
from uuid import UUID

import pytest
import yaml
from prefect.client.schemas.objects import FlowRun

from cxrmodel.config import PipelineConfig, StoreConfig
from deployments.definitions import WITHOUT_GPU, deployments, job_environment
from deployments.pools import job_template
from deployments.target import Target, placed

BUCKET = PipelineConfig(store=StoreConfig(root="s3://bucket/cxr"))
RUN = FlowRun(id=UUID(int=1), flow_id=UUID(int=2), name="films-patient")
KUBERNETES = Target(pool_type="kubernetes", image="cxrmodel:1")
DOCKER = Target(pool_type="docker", image="cxrmodel:1")


def rendered(configuration, target, values):
    # The templates refer to no block, so no server is asked; without a client one would be started.
    template, client = job_template(target), object()
    job = asyncio.run(configuration.from_template_and_values(template, values, client=client))
    job.prepare_for_flow_run(RUN)
    return job


@pytest.fixture
def manifest():
    """Render the Kubernetes job of some job variables."""
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="needs the extra [deploy]")

    def render(target=KUBERNETES, **values):
        values.setdefault("env", job_environment(BUCKET, target))
        values.setdefault("image", target.image)
        job = rendered(worker.KubernetesWorkerJobConfiguration, target, values)
        return job.job_manifest

    return render


@pytest.fixture
def container():
    """Render what the Docker worker asks of the engine for some job variables."""
    worker = pytest.importorskip("prefect_docker.worker", reason="needs the extra [deploy]")
    return lambda target=DOCKER, **values: rendered(
        worker.DockerWorkerJobConfiguration, target, {"image": target.image, **values}
    )


def pod_of(manifest):
    return manifest["spec"]["template"]["spec"]


def test_a_kubernetes_job_has_one_gpu_shared_memory_and_time_to_end(manifest):
    job = manifest()
    pod = pod_of(job)
    (box,) = pod["containers"]
    assert box["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    mounts = {mount["mountPath"]: mount["name"] for mount in box["volumeMounts"]}
    assert mounts == {"/dev/shm": "shm", "/tmp": "tmp", "/app/outputs": "outputs"}
    assert pod["terminationGracePeriodSeconds"] == 120
    assert (job["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_a_kubernetes_job_is_unprivileged(manifest):
    pod = pod_of(manifest())
    (box,) = pod["containers"]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (
        True,
        10001,
    )
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not any("hostPath" in volume for volume in pod["volumes"])


def test_a_kubernetes_job_runs_the_flow_of_its_image_and_is_rescheduled_when_evicted(manifest):
    (box,) = pod_of(manifest())["containers"]
    assert box["image"] == "cxrmodel:1"
    assert box["args"] == ["prefect", "flow-run", "execute"]
    env = {entry["name"]: entry["value"] for entry in box["env"]}
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert env["PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"].startswith("remote-file-system/cxrmodel-")


def test_a_kubernetes_job_without_gpu(manifest):
    (box,) = pod_of(manifest(**WITHOUT_GPU["kubernetes"]))["containers"]
    assert box["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 0}


def test_a_claim_keeps_the_checkpoints_of_an_evicted_pod(manifest):
    target = KUBERNETES.model_copy(update={"outputs_claim": "cxr-outputs"})
    assert {
        "name": "outputs",
        "persistentVolumeClaim": {"claimName": "cxr-outputs"},
    } in pod_of(manifest(target))["volumes"]


@pytest.mark.parametrize("values", [{}, WITHOUT_GPU["kubernetes"]])
def test_a_kubernetes_job_is_valid(manifest, values):
    validate = pytest.importorskip("kubernetes_validate", reason="needs the extra [deploy]")
    job = yaml.safe_load(yaml.safe_dump(manifest(**values)))
    pod = pod_of(job)
    with pytest.raises(validate.ValidationError, match="parallelism"):
        validate.validate(job, "1.34", strict=True)
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)  # Prefect's, not Kubernetes'
    validate.validate(job, "1.34", strict=True)


def test_a_container_has_the_gpu_shared_memory_and_nothing_it_needs_not(container):
    job = container()
    assert job.image == "cxrmodel:1"
    assert job.container_create_kwargs == {
        "device_requests": [{"driver": "nvidia", "count": 1, "capabilities": [["gpu"]]}],
        "shm_size": "16g",
        "init": True,
        "read_only": True,
        "user": "10001:10001",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": {"/tmp": "mode=1777"},
    }
    assert job.privileged is False
    assert job.volumes == ["cxr-outputs:/app/outputs"]


def test_a_container_without_gpu_keeps_the_rest(container):
    job = container(**WITHOUT_GPU["docker"])
    assert job.container_create_kwargs["device_requests"] == []
    assert job.container_create_kwargs["shm_size"] == "2g"
    assert job.container_create_kwargs["read_only"] is True


def test_the_image_is_the_deployments_own_so_that_two_versions_share_a_pool():
    names = []
    for target in (DOCKER, DOCKER.model_copy(update={"image": "cxrmodel:0", "suffix": "old"})):
        assert job_template(target) == job_template(DOCKER)
        for deployment in deployments(BUCKET, target):
            assert deployment.wanted()["job_variables"]["image"] == target.image
            names.append(deployment.label.partition("/")[2])
    own = ["train", "train-weekly", "smoke", "score", "promote", "evaluate"]
    assert names == [*own, *(f"{name}-old" for name in own)]


def test_volumes_are_added_to_those_of_the_outputs(container):
    target = DOCKER.model_copy(update={"volumes": ("/data/films:/data/films:ro",)})
    assert container(target).volumes == ["cxr-outputs:/app/outputs", "/data/films:/data/films:ro"]


@pytest.mark.parametrize("target", [KUBERNETES, DOCKER, Target(pool_type="process")])
def test_every_variable_is_used_explained_and_no_other_is_allowed(target):
    template = job_template(target)
    variables = template["variables"]
    assert variables["additionalProperties"] is False
    text = yaml.safe_dump(template["job_configuration"])
    for name, schema in variables["properties"].items():
        assert f"{{{{ {name} }}}}" in text, name
        assert schema["title"], name
    assert WITHOUT_GPU[target.pool_type].keys() <= variables["properties"].keys()


def test_folders_are_absolute_where_the_job_sees_them():
    assert placed(PipelineConfig(), DOCKER).store.root == "/app/outputs/store"
    assert placed(PipelineConfig(), DOCKER).store.scratch == "/app/outputs/scratch"
    assert placed(BUCKET, KUBERNETES).store.root == "s3://bucket/cxr"
