"""`python -m deployments ui`: server, worker and deployments on this machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from prefect.settings import PREFECT_API_URL, temporary_settings

HOST = "127.0.0.1"
DEFAULT_PORT = 4200
STARTUP_S = 120
STOP_S = 40  # a run in training writes its checkpoint
POOL = "cxr-gpu"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a service manager, no terminal
PAGE = {
    # The newer page asks a tracking service for its settings even where analytics are off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def run(arguments: list[str], deploy: Callable[[list[str]], None]) -> Iterator[str]:
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
    }
    for ending in ENDINGS:
        signal.signal(ending, _interrupt)
    with ExitStack() as stack:
        command = ["server", "start", "--host", HOST, "--port", str(port)]
        server = stack.enter_context(_prefect(command, env))
        _wait_for(f"{api}/health", server)
        with temporary_settings(updates={PREFECT_API_URL: api}):
            deploy(["--pool-type", "process", "--pool", POOL, *arguments])
        command = ["worker", "start", "--pool", POOL, "--type", "process"]
        worker = stack.enter_context(_prefect(command, env))
        yield f"\nPage: {page}\nTry:  PREFECT_API_URL={api} prefect deployment run cxrmodel/smoke"
        yield "Ctrl-C stops everything; what has finished stays in the store.\n"
        while server.poll() is None and worker.poll() is None:
            time.sleep(0.5)
        raise ValueError("the server or the worker has ended by itself; its last lines are above")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            raise ValueError(
                f"something listens on {HOST}:{port} already. Stop it, or choose another port with "
                "PREFECT_SERVER_API_PORT"
            )


@contextmanager
def _prefect(arguments: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    # Its own session: Ctrl-C reaches this process alone, which then stops worker before server.
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "prefect", *arguments], env=env, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTUP_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 - loopback
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise ValueError(f"the server does not answer on {url}; its last lines are above")
