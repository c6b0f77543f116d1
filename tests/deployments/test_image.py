"""The image: built, looked into, and run; alone and by Prefect's docker worker."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.servers.prefect_server import running

pytestmark = pytest.mark.integration
PROJECT = Path(__file__).parents[2]
DOCKER = os.environ.get("DOCKER", shutil.which("docker"))
BASE = "python:3.11-slim"
TAG = "cxrmodel:test"
MAX_BYTES = 2_200_000_000
POOL = "test-docker"
SMALL = (
    "--data.phantom_images=40",
    "--images.size=64",
    "--vae.epochs=1",
    "--vae.batch_size=8",
    "--classifier.epochs=2",
    "--report.num_reconstructions=1",
    "--report.tsne_points=50",
    "--runtime.device=cpu",
)
LOCKED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def docker(*arguments: str) -> str:
    done = subprocess.run([DOCKER, *arguments], check=False, text=True, capture_output=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built from this checkout."""
    if DOCKER is None or subprocess.call([DOCKER, "version"]):
        pytest.skip("no Docker engine answers")
    present = subprocess.call([DOCKER, "image", "inspect", BASE]) == 0
    if not present and subprocess.call([DOCKER, "pull", BASE]):
        pytest.skip(f"the base image {BASE} cannot be had")
    arguments = [f"VERSION={version('cxrmodel')}", "REVISION=abc1234"]
    arguments = [part for pair in arguments for part in ("--build-arg", pair)]
    docker("build", "--network=host", *arguments, "--tag", TAG, str(PROJECT))
    return TAG


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", "--pull=never", "--network=host", *LOCKED, image, *command)


def test_it_is_small_labelled_and_not_of_root(image):
    (facts,) = json.loads(docker("image", "inspect", image))
    assert facts["Size"] < MAX_BYTES
    assert facts["Config"]["User"] == "10001:10001"
    labels = facts["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == version("cxrmodel")
    assert labels["org.opencontainers.image.revision"] == "abc1234"


def test_flags_go_to_the_pipeline_and_words_are_commands(image):
    assert "--vae.kl_weight float" in inside(image, "--help")
    assert inside(image, "prefect", "--version").strip() == version("prefect")
    code = "from deployments.definitions import version; print(version())"
    assert inside(image, "python", "-c", code).strip() == f"{version('cxrmodel')}+abc1234"


def test_it_holds_the_code_and_nothing_else(image):
    found = set(inside(image, "ls", "-A", "/app").split())
    assert found == {"cxrmodel", "tasks", "flows", "deployments", "configs", "outputs"}
    names = "( -name .env -o -name .git -o -name .netrc -o -name .aws -o -name id_rsa )"
    assert root_finds(image, *names.split()) == ""
    assert inside(image, "sh", "-c", "grep -rlE 'AKIA[0-9A-Z]{16}|PRIVATE KEY' /app || true") == ""


def test_nothing_given_to_the_build_is_told_to_who_has_the_image(image):
    (facts,) = json.loads(docker("image", "inspect", image))
    names = {entry.partition("=")[0] for entry in facts["Config"]["Env"]}
    assert not [name for name in names if "PIP" in name or "INDEX" in name]
    # An index's URL may carry a password; it is an argument of the first stage alone.
    assert "PIP_" not in docker("history", "--no-trunc", image)


def root_finds(image: str, *what: str) -> str:
    return docker("run", "--rm", "--pull=never", "--user=0", image, "find", "/", "-xdev", *what)


def test_no_file_of_it_can_be_changed_by_everybody_or_by_its_user(image):
    changeable = ["-type", "f", "(", "-perm", "-0002", "-o", "-user", "10001", ")"]
    assert root_finds(image, *changeable) == ""
    unguarded = ["-type", "d", "-perm", "-0002", "-not", "-perm", "-1000"]
    assert root_finds(image, *unguarded) == ""


def test_the_pipeline_runs_with_a_read_only_root(image, tmp_path):
    tmp_path.chmod(0o777)
    output = docker(
        "run", "--rm", "--pull=never", "--network=host", *LOCKED,
        f"--volume={tmp_path}:/app/outputs", image, *SMALL,
    )  # fmt: skip
    assert "report: /app/outputs/store/report/" in output
    (report,) = tmp_path.glob("store/report/*/report.html")
    assert report.stat().st_uid == 10001


def test_the_docker_worker_runs_smoke(image, server, api, tmp_path):
    pytest.importorskip("prefect_docker", reason="needs the extra [deploy]")
    tmp_path.chmod(0o777)
    python, env = [sys.executable, "-m"], {**os.environ, **server.env}
    command = [*python, "deployments", "--pool-type=docker", f"--pool={POOL}", f"--image={image}"]
    subprocess.run(command, cwd=PROJECT, env=env, check=True)
    worker = [*python, "prefect", "worker", "start", "--pool", POOL, "--type", "docker"]
    with running(worker, server.env, tmp_path / "worker.log"):
        deployment = api.client.read_deployment_by_name("cxrmodel/smoke")
        here = {
            "network_mode": "host",
            "image_pull_policy": "Never",
            "volumes": [f"{tmp_path}:/app/outputs"],
        }
        run = api.client.create_flow_run_from_deployment(deployment.id, job_variables=here).id
        assert api.finish(run) == "Completed", log_of(tmp_path)
    assert len(list(tmp_path.glob("store/_results/*"))) == 8
    assert list(tmp_path.glob("store/report/*/report.html"))
    assert {path.stat().st_uid for path in tmp_path.glob("store/*/*")} == {10001}
    assert docker("ps", "--all", "--quiet", f"--filter=ancestor={image}") == ""


def log_of(folder: Path) -> str:
    return (folder / "worker.log").read_text()[-3000:]
