"""`python -m deployments ui`: one command, one Ctrl-C, and nobody else can reach it."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.site import descendants, listening
from tests.servers.prefect_server import free_port, wait_until

pytestmark = pytest.mark.integration
PROJECT = Path(__file__).parents[2]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_it_starts_everything_says_where_to_look_and_stops_on_ctrl_c(tmp_path):
    port = free_port()
    env = {**os.environ, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_API_PORT": str(port)}
    command = [sys.executable, "-m", "deployments", "ui", f"--store.root={tmp_path / 'store'}"]
    # As `make ui` in a terminal, where Ctrl-C reaches make too; this Python has the packages.
    make = ["make", "ui", f"BIN={Path(sys.executable).parent}", "READY="]
    log = tmp_path / "log"
    ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in the background of a script
    try:
        with log.open("w") as stream:
            process = subprocess.Popen(
                make, cwd=PROJECT, env=env, stdout=stream, stderr=stream, start_new_session=True
            )
    finally:
        signal.signal(signal.SIGINT, ignored)
    try:
        wait_until(
            lambda: "started!" in log.read_text() or process.poll() is not None, "the worker starts"
        )
        assert f"Page: http://127.0.0.1:{port}" in log.read_text()
        assert listening([process.pid, *descendants(process.pid)]) == {"127.0.0.1"}
        second = subprocess.run(
            command, cwd=PROJECT, env=env, check=False, text=True, capture_output=True
        )
        assert second.returncode == 2
        assert f"something listens on 127.0.0.1:{port} already" in second.stderr
        started = descendants(process.pid)
        assert len(started) >= 2  # the server and the worker
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=120)  # each of the two has 40 s
    text = log.read_text()
    assert text.strip().endswith("stopped")
    assert "***" not in text  # of make, which reports an error
    assert "Traceback" not in text
    assert not listens(port)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
