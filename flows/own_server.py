"""A Prefect server for one run, where none is configured; it ends with the run, however that ends.

Prefect starts a temporary server by itself too. That one is in the terminal's process group, so
Ctrl-C ends it before the run can say how it ended; and all of a user's share one SQLite file in
their home, where several runs at once wait for each other's locks.

This file is also the program of the server's process. It runs `python -m prefect`, and ends when
the pipe from its parent closes, which the kernel does even for a parent that is killed.
"""

from __future__ import annotations

import logging
import os
import runpy
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import prefect
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_UI_URL,
    get_current_settings,
    temporary_settings,
)

LOOPBACK = "127.0.0.1"
NO_PROXY = ("no_proxy", "NO_PROXY")  # Python's clients look at the first of these that is set
STOP_S = 40  # a worker's run in training writes its checkpoint
STARTUP_S = 120
READY_EVERY_S = 0.1
DATABASE = "prefect.db"  # Prefect's own name for it, in its home
FOLDER = "prefect"  # in scratch
LOG_LINES = 20

logger = logging.getLogger(__name__)


@contextmanager
def own_server(scratch: Path) -> Iterator[None]:
    """Give the runs within this context a server: the configured one, or one of their own.

    The own one keeps its database in a temporary folder, unless a database is configured; what must
    outlast the run is in the store.

    Args:
        scratch: Node-local folder, for an empty database to start from.

    Raises:
        RuntimeError: The server does not start.
    """
    if PREFECT_API_URL.value():
        yield
        return
    port, log_name = _free_port(), "server.log"
    url = f"http://{LOOPBACK}:{port}/api"
    start = ["server", "start", "--no-ui", "--no-services", "--host", LOOPBACK, "--port", str(port)]
    with (
        TemporaryDirectory(prefix="cxrmodel-prefect-", ignore_cleanup_errors=True) as folder,
        Path(folder, log_name).open("wb") as output,
        _variables(beside_proxies(os.environ)),
    ):
        home = Path(folder)
        _copy_empty_database(scratch, home)
        with companion(start, _environment(home), output) as server:
            if not wait_for(f"{url}/health", server):
                lines = Path(output.name).read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise RuntimeError("\n".join(["Prefect's server does not start:", *lines]))
            _keep_empty_database(scratch, home)
            # It has no page: the log must not say where to view the run.
            with temporary_settings(updates={PREFECT_API_URL: url, PREFECT_UI_URL: ""}):
                yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _variables(changed: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of the server: the user's settings, and a home of its own."""
    configured = get_current_settings().to_environment_variables(exclude_unset=True)
    return {**os.environ, **configured, "PREFECT_HOME": str(home)}


def _empty_database(scratch: Path) -> Path:
    return scratch / FOLDER / f"{prefect.__version__}.db"


def _copy_empty_database(scratch: Path, home: Path) -> None:
    kept, copy = _empty_database(scratch), home / DATABASE
    if not kept.is_file():
        return
    shutil.copyfile(kept, copy)
    try:
        with closing(sqlite3.connect(copy)) as connection:
            damage = connection.execute("PRAGMA quick_check").fetchone() != ("ok",)
    except sqlite3.DatabaseError:  # its first bytes are of no database
        damage = True
    if damage:
        logger.warning("%s is damaged and is made again", kept)
        copy.unlink()
        kept.unlink()


def _keep_empty_database(scratch: Path, home: Path) -> None:
    """Keep a copy of a new server's tables: to make them takes it some five seconds of CPU."""
    kept, made = _empty_database(scratch), home / DATABASE
    if kept.exists() or not made.exists():  # another database is configured
        return
    draft = home / "empty.db"
    part = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
    try:
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("VACUUM INTO ?", (str(draft),))
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(draft, part)  # the temporary folder may be on another disk
        part.replace(kept)
    except (OSError, sqlite3.OperationalError) as error:  # a full disk, a folder of somebody else
        logger.warning("Each start of a run takes longer: %s cannot be kept (%s)", kept, error)
        with suppress(OSError):
            part.unlink()


@contextmanager
def companion(
    arguments: list[str], env: Mapping[str, str], output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `prefect` with these arguments for as long as the context lasts.

    It has a session of its own: Ctrl-C in a terminal reaches this process alone, which still needs
    its server to say how it ended.

    Args:
        arguments: Of the command `prefect`.
        env: Its whole environment.
        output: Where it writes; None: where this process does.
    """
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", __file__, *arguments],
        env=env,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
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
        if process.stdin:
            process.stdin.close()


def beside_proxies(env: Mapping[str, str]) -> dict[str, str]:
    """Return what an environment lacks for clients to reach this machine past its proxies."""
    others = next((env[name] for name in NO_PROXY if env.get(name)), "")
    return dict.fromkeys(NO_PROXY, f"{others},{LOOPBACK}" if others else LOOPBACK)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Wait until a companion answers a GET of this URL; False where it ends before, or never."""
    deadline = time.monotonic() + STARTUP_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None and time.monotonic() < deadline:
        try:
            direct.open(url, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(READY_EVERY_S)
        else:
            return True
    return False


def _end_with_parent() -> None:
    while os.read(0, 1):  # nobody writes: it returns when the parent has ended
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
