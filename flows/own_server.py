"""A Prefect server for one run, where none is configured.

Prefect starts a temporary server by itself too. That one is in the terminal's process group, so
Ctrl-C ends it before the run can say how it ended; and all of a user's share one SQLite file in
their home, where several runs at once wait for each other's locks.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import prefect
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_UI_URL,
    get_current_settings,
    temporary_settings,
)

from flows.companion import LOOPBACK, beside_proxies, companion, wait_for

log = logging.getLogger(__name__)

DATABASE = "prefect.db"  # Prefect's own name for it, in its home
FOLDER = "prefect"  # in scratch
LOG_LINES = 20


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
        log.warning("%s is damaged, and is made anew", kept)
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
        log.warning("Each start of a run takes longer: %s cannot be kept (%s)", kept, error)
        with suppress(OSError):
            part.unlink()
