"""A guarded Prefect server for tests, with a password and CSRF protection as in compose.yaml."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.local import PAGE

AUTH = "admin:correct-horse"
START_S = 120
STOP_S = 40
WAIT_S = 300  # of a busy machine; nothing waits longer than it must


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for a condition; `what` is said where it does not come.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Say whether a GET of the URL succeeds."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


@contextmanager
def running(
    command: list[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background, in its log's folder; end it on leaving."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, cwd=log.parent, stdout=stream, stderr=stream
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it."""
    process.terminate()
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def open_server(home: Path) -> Iterator[dict[str, str]]:
    """Run a server without page and password; gives the environment of its clients."""
    port = free_port()
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui"]
    place = ["--host", "127.0.0.1", "--port", str(port)]
    with running([*command, *place], env, home / "server.log"):
        wait_until(lambda: answers(f"{env['PREFECT_API_URL']}/health"), "it answers", START_S)
        yield env


class PrefectServer:
    """One server on loopback; it keeps its port and its database from one start to the next.

    Args:
        home: Folder of its files.
        database: URL of its database; SQLite in `home` where there is none.
        settings: More of the server's environment.
        page: Serve the web page too.

    Attributes:
        home: As given.
        url: Of the page.
        env: Environment of a client.
        process: The running server.
    """

    def __init__(
        self, home: Path, database: str | None = None, *,
        settings: dict[str, str] | None = None, page: bool = False,
    ) -> None:  # fmt: skip
        self.home, self._port = home, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.env = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_API_AUTH_STRING": AUTH,
            "DO_NOT_TRACK": "1",
        }
        self._settings = {
            "PREFECT_SERVER_API_AUTH_STRING": AUTH,
            "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            **PAGE,
            **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}),
            **(settings or {}),
        }
        self._flags = [] if page else ["--no-ui"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", *self._flags]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **self.env, **self._settings},
                cwd=self.home,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: answers(f"{self.url}/api/health"), "the server answers", START_S)

    def stop(self) -> None:
        """Stop it; what it knows stays in its database."""
        if self.process is not None:
            end(self.process)
            self.process = None
