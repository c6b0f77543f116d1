"""`python -m deployments ui`: server, worker and deployments on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack

from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.own_server import LOOPBACK as HOST
from flows.own_server import beside_proxies, companion, wait_for

DEFAULT_PORT = 4200
POOL = "cxr-gpu"
PAGE = {
    # The newer page asks a tracking service for its settings even where analytics are off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def run(arguments: list[str], deploy: Callable[[list[str]], None]) -> Generator[str]:
    """Start everything, yield lines that say where to look, and wait for the end.

    Args:
        arguments: Flags of flows/main.py, for the settings that the deployments start from.
        deploy: Makes the pool and the deployments from the command line's arguments.

    Raises:
        ValueError: The port is taken, or the server or the worker ends by itself.
    """
    port = int(os.environ.get("PREFECT_SERVER_API_PORT", DEFAULT_PORT))
    _check_free(port)
    page, api = f"http://{HOST}:{port}", f"http://{HOST}:{port}/api"
    env = {
        **os.environ,
        "PREFECT_API_URL": api,
        "PREFECT_SERVER_UI_API_URL": api,
        "DO_NOT_TRACK": "1",
        **PAGE,
        **beside_proxies(os.environ),
    }
    with ExitStack() as stack:
        command = ["server", "start", "--host", HOST, "--port", str(port)]
        server = stack.enter_context(companion(command, env))
        if not wait_for(f"{api}/health", server):
            raise ValueError(f"the server does not answer on {api}; its last lines are above")
        with temporary_settings(updates={PREFECT_API_URL: api}):
            deploy(["--pool-type", "process", "--pool", POOL, *arguments])
        command = ["worker", "start", "--pool", POOL, "--type", "process"]
        worker = stack.enter_context(companion(command, env))
        yield f"\nPage: {page}\nTry:  PREFECT_API_URL={api} prefect deployment run cxrmodel/smoke"
        yield "Ctrl-C stops everything; what has finished stays in the store.\n"
        while server.poll() is None and worker.poll() is None:
            time.sleep(0.5)
        raise ValueError("the server or the worker has ended by itself; its last lines are above")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            raise ValueError(
                f"something listens on {HOST}:{port} already. Stop it, or choose another port with "
                "PREFECT_SERVER_API_PORT"
            )
