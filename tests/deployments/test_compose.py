"""compose.yaml: nothing beyond loopback, no secret in it, everything healthy before it is used."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deployments"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]


def test_ports_are_published_on_loopback_alone():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert {name for name, ports in published.items() if ports} == {"server", "s3"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert not any("network_mode" in service for service in SERVICES.values())


def test_every_secret_comes_from_the_environment_file_and_must_be_given():
    example = dict(
        line.split("=", 1)
        for line in (FOLDER / "env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    variables = re.findall(r"\$\{(\w+)(:\?)?", TEXT)
    assert {name for name, _ in variables} == example.keys()
    assert all(must for _, must in variables)
    assert {name for name, value in example.items() if value} == {"CXR_IMAGE"}
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("SECRET|PASSWORD|AUTH_STRING|ACCESS_KEY", name):
                assert value.startswith("${"), name


def test_the_server_asks_for_a_password_and_refuses_cross_site_requests():
    env = SERVICES["server"]["environment"]
    assert env["PREFECT_SERVER_API_AUTH_STRING"].startswith("${PREFECT_AUTH")
    assert env["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert env["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"
    assert env["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")


def test_each_waits_until_what_it_needs_is_healthy():
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[needed], (name, needed)
    assert SERVICES["worker"]["depends_on"] == {
        "deploy": {"condition": "service_completed_successfully"}
    }
    assert "healthcheck" in SERVICES["worker"]


@pytest.mark.parametrize("name", ["server", "deploy", "worker"])
def test_our_containers_are_read_only_and_unprivileged(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "privileged" not in service
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


def test_every_volume_is_declared_and_every_image_has_a_version():
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
    }
    assert used == COMPOSE["volumes"].keys()
    for service in SERVICES.values():
        assert service["image"].startswith("${CXR_IMAGE") or ":" in service["image"]


def test_the_gpu_is_added_to_a_service_that_exists():
    extra = yaml.safe_load((FOLDER / "compose.gpu.yaml").read_text())["services"]
    assert extra.keys() <= SERVICES.keys()
    (device,) = extra["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


@pytest.mark.integration
def test_compose_itself_accepts_it(tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.call([docker, "compose", "version"]):
        pytest.skip("docker compose is not installed")
    env = tmp_path / "env"
    env.write_text(re.sub("=$", "=x", (FOLDER / "env.example").read_text(), flags=re.MULTILINE))
    files = ["--file", FOLDER / "compose.yaml", "--file", FOLDER / "compose.gpu.yaml"]
    subprocess.run([docker, "compose", "--env-file", env, *files, "config", "--quiet"], check=True)
