"""A PostgreSQL server for tests: one cluster on loopback, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

DEBIAN = Path("/usr/lib/postgresql")
USER = "prefect"
START_S = 90


def find_programs() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`, None where there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(DEBIAN.glob("*/bin"))
    return folders[-1] if folders else None


class Postgres:
    """One database, whose server refuses to run as root and so runs as `postgres` there.

    Attributes:
        url: For SQLAlchemy with asyncpg.
    """

    def __init__(self) -> None:
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError("PostgreSQL is not installed")
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"postgresql+asyncpg://{USER}@127.0.0.1:{self._port}/prefect"

    def start(self) -> None:
        """Make the cluster and its database, and wait until it answers."""
        self._run("initdb", "--auth=trust", f"--username={USER}", "--no-sync")
        self._pg_ctl("start")
        self._run("createdb", "--host=127.0.0.1", f"--port={self._port}", f"--username={USER}",
                  "prefect", in_cluster=False)  # fmt: skip

    def restart(self) -> None:
        """Stop, breaking every connection, and start again."""
        self._pg_ctl("restart", "--mode=fast")

    def stop(self) -> None:
        """Stop at once and delete everything."""
        self._pg_ctl("stop", "--mode=immediate")
        shutil.rmtree(self._folder)

    def _pg_ctl(self, action: str, *arguments: str) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c fsync=off "
        options += f"-c unix_socket_directories={self._folder}"
        log = f"--log={self._folder / 'log'}"
        self._run(
            "pg_ctl", action, *arguments, "--wait", f"--timeout={START_S}", log, "-o", options
        )

    def _run(self, program: str, *arguments: str, in_cluster: bool = True) -> None:
        data = [f"--pgdata={self._folder / 'data'}"] if in_cluster else []
        words = [str(self._programs / program), *data, *arguments]
        if os.geteuid() == 0:
            words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
        # Its output goes to a file: a server that inherits a pipe would keep it open.
        output = self._folder / f"{program}.out"
        with output.open("ab") as stream:
            done = subprocess.run(
                words, cwd=self._folder, stdout=stream, stderr=stream, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{output.read_text(errors='replace')[-2000:]}")
