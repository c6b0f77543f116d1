"""A machine that works for a pool, and what a user does and sees through the API."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    LogFilter,
)
from prefect.client.schemas.objects import Artifact, TaskRun
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from cxrmodel.config import Stage
from tests.servers.prefect_server import AUTH, PrefectServer, running, wait_until

STAGES = {*get_args(Stage)}
LISTEN = "0A"  # the state in /proc/net/tcp
ENDED = {"Completed", "Failed", "Crashed", "Cancelled"}
SMALL = (
    "--data.phantom_images=60",
    "--images.size=64",
    "--vae.epochs=1",
    "--vae.batch_size=8",
    "--latents.batch_size=16",
    "--classifier.epochs=2",
    "--report.num_reconstructions=1",
    "--report.tsne_points=50",
    "--runtime.device=cpu",
)


@dataclass(frozen=True)
class Site:
    """A machine that runs what a pool hands out.

    Attributes:
        folder: Its disk.
        env: Environment of its worker.
        pool: Name of the pool.
    """

    folder: Path
    env: dict[str, str]
    pool: str

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def deploy(self, project: Path, *arguments: str, store: str, revision: str = "") -> list[str]:
        """Make pool and deployments as a user does, from a copy of the project.

        Returns:
            What the command says.
        """
        command = [sys.executable, "-m", "deployments", "--pool-type=process"]
        command += [f"--pool={self.pool}", f"--store.root={store}"]
        command += [f"--store.scratch={self.scratch}", *arguments]
        env = {**os.environ, **self.env, "PYTHONPATH": str(project)}
        env["CXRMODEL_REVISION"] = revision
        done = subprocess.run(
            command, cwd=project, env=env, check=True, text=True, stdout=subprocess.PIPE
        )
        return done.stdout.splitlines()

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", self.pool]
        with running([*command, "--type", "process"], self.env, self.log) as process:
            yield process

    def checkpoints(self) -> list[Path]:
        return list(self.scratch.glob("work/vae-*/*.safetensors"))

    def step(self) -> int:
        """Last step of training that a checkpoint holds; 0 where there is none."""
        return max((_step(path) for path in self.checkpoints()), default=0)


def _step(checkpoint: Path) -> int:
    try:
        with checkpoint.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
    except FileNotFoundError:  # renamed since it was listed: the last becomes the previous one
        return 0
    return int(json.loads(header["__metadata__"]["checkpoint"])["step"])


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return [each for child in found for each in (int(child), *descendants(int(child)))]


def listening(pids: list[int]) -> set[str]:
    """Return the addresses that processes listen on: IPv4, or `IPv6` for any of that kind."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [["", "IPv6", *line.split()[2:]]
             for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]  # fmt: skip
    return {
        address if address == "IPv6" else socket.inet_ntoa(bytes.fromhex(address[:8])[::-1])
        for _, address, _, state, *rest in rows
        if state == LISTEN and rest[5] in inodes
    }


def _sockets(pid: int) -> Iterator[str]:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # it has been closed
                name = str(handle.readlink())
                if name.startswith("socket:["):
                    yield name.removeprefix("socket:[").removesuffix("]")


@contextmanager
def api_of(server: PrefectServer) -> Iterator[Api]:
    """Give a client of a server, which code that makes its own finds too."""
    updates = {PREFECT_API_URL: server.env["PREFECT_API_URL"], PREFECT_API_AUTH_STRING: AUTH}
    with temporary_settings(updates=updates), get_client(sync_client=True) as client:
        yield Api(client)


class Api:
    """What a user does and sees through the API."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def trigger(self, name: str, env: dict[str, str] | None = None, **settings: Any) -> UUID:
        """Start a run of a deployment.

        Args:
            name: Flow and deployment, or a deployment of the training.
            env: More of the run's environment.
            settings: `vae__epochs=3` sets one of the settings.
        """
        full_name = name if "/" in name else f"cxrmodel/{name}"
        deployment = self.client.read_deployment_by_name(full_name)
        parameters = deployment.parameters
        for path, value in settings.items():
            *sections, field = path.split("__")
            inner = parameters["config"]
            for section in sections:
                inner = inner[section]
            inner[field] = value
        variables = {"env": {**deployment.job_variables["env"], **(env or {})}}
        run = self.client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, job_variables=variables
        )
        return run.id

    def state(self, run: UUID) -> str | None:
        return self.client.read_flow_run(run).state_name

    def finish(self, run: UUID, timeout_s: float = 300) -> str | None:
        wait_until(lambda: self.state(run) in ENDED, f"run {run} ends", timeout_s)
        return self.state(run)

    def tasks(self, run: UUID) -> dict[str, TaskRun]:
        """Task runs of a run, by name."""
        found = self.client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [run]}))
        return {task.name: task for task in found}

    def stages(self, run: UUID) -> dict[str, str | None]:
        """State of each stage of a run, by name."""
        return {name: task.state_name for name, task in self.tasks(run).items() if name in STAGES}

    def log(self, run: UUID) -> str:
        logs = self.client.read_logs(LogFilter(flow_run_id={"any_": [run]}), limit=200)
        return "\n".join(entry.message for entry in logs)

    def artifacts(self, run: UUID) -> dict[str | None, Any]:
        """Data of the artifacts of a run, by key."""
        return {artifact.key: artifact.data for artifact in self._artifacts(run)}

    def artifact_ids(self, run: UUID) -> dict[str | None, UUID]:
        """Ids of the artifacts of a run, by key."""
        return {artifact.key: artifact.id for artifact in self._artifacts(run)}

    def _artifacts(self, run: UUID) -> list[Artifact]:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return self.client.read_artifacts(artifact_filter=of_run)
