"""Signals, closed pipes, full disks and narrow encodings, as a terminal gives them to a command."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from flows.terminal import ENDINGS
from tests.flows.conftest import Pipeline
from tests.servers.prefect_server import wait_until

PROJECT = Path(__file__).parents[2]
STOPPED = "stopped; the same command goes on from here"
TRAINING = "'split' - Finished"
SOON_S = 60  # far less than a run needs that has lost its server, on a machine that is busy
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

SMALL_COMMAND = """
import sys, time
from flows import terminal

terminal.before_imports()
with terminal.command("stopped here"):
    try:
        {body}
    finally:
        print("cleaned up")
"""
WAIT = "print('begun', flush=True); time.sleep(60)"
CLEAN_UP_SLOWLY = """
        try:
            print("begun", flush=True)
            time.sleep(60)
        finally:
            print("cleaning up", flush=True)
            time.sleep(1.5)
"""


def start(body: str, **options) -> subprocess.Popen:
    script = SMALL_COMMAND.format(body=body)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    # A runner of tests may ignore signals.
    ignored = {number: signal.signal(number, signal.SIG_DFL) for number in ENDINGS}
    try:
        return subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, **options)
    finally:
        for number, handler in ignored.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_command_with_a_line_and_the_code_that_shells_expect(number, code):
    process = start(WAIT)
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, out, err) == (code, "cleaned up\n", "stopped here\n")


def test_the_garbage_collector_rests_among_imports_and_works_again_without_what_they_made():
    process = start("import gc; print(gc.isenabled(), gc.get_freeze_count() > 1000)")
    out, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, out, err) == (0, "True True\ncleaned up\n", "")


def test_more_signals_do_not_disturb_the_clean_up():
    process = start(CLEAN_UP_SLOWLY)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning up\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.1)
    out, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, out, err) == (143, "cleaned up\n", "stopped here\n")


def test_a_signal_after_long_patience_ends_a_command_that_hangs():
    hang = "terminal.PATIENCE_S = 0.2" + CLEAN_UP_SLOWLY.replace("1.5", "600")
    process = start(hang)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning up\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (130, "stopped at once\n")


def test_a_signal_that_nohup_ignores_stays_ignored():
    script = SMALL_COMMAND.format(body="print('begun', flush=True); time.sleep(1)")
    command = ["nohup", sys.executable, "-c", script]
    process = subprocess.Popen(command, cwd=PROJECT, text=True, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=SOON_S)
    assert (process.returncode, out) == (0, "cleaned up\n")


def test_a_reader_that_has_read_enough_is_no_error():
    process = start("print('line\\n' * 100_000)")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=SOON_S) == 0


def test_help_can_be_cut_short():
    command = f"{sys.executable} flows/main.py --help | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_disk_that_is_full_is_named():
    with Path("/dev/full").open("w") as full:
        process = start("print('result')", stdout=full)
        _, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (1, "error: [Errno 28] No space left on device\n")


def test_a_path_that_the_output_cannot_spell_is_escaped():
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    process = start("print('report: /daten/R\\xf6ntgen')", env=env)
    out, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (0, "")
    assert "report: /daten/R\\xf6ntgen\n" in out


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_streams_does_its_work(closed, tmp_path):
    body = f"print('result'); open({str(tmp_path / 'done')!r}, 'w').close()"
    script = SMALL_COMMAND.format(body=body)
    command = ["bash", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, script]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    ("command", "first"),
    [(["flows/compare.py", "a", "b"], "numpy"), (["-m", "deployments", "gc"], "pydantic_core")],
)
def test_ctrl_c_among_the_imports_of_other_commands_leaves_no_traceback(command, first):
    ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        env = {**os.environ, "PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen(
            [sys.executable, *command], cwd=PROJECT, env=env, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, ignored)
    maps = Path(f"/proc/{process.pid}/maps")
    wait_until(lambda: first in maps.read_text() or process.poll() is not None, "it imports")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SOON_S)
    assert (process.returncode, err) == (-signal.SIGINT, "")


class Terminal:
    """A run in the foreground of a pseudo-terminal."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        self._output, self._code, self._closing = b"", None, threading.Event()
        self.pid, self._keys = pty.fork()
        if self.pid == 0:
            for number in ENDINGS:
                signal.signal(number, signal.SIG_DFL)
            os.chdir(folder)
            os.execve(command[0], command, {**os.environ, **env})
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # it ends so once nobody is there to write
            while not self._closing.is_set():
                if select.select([self._keys], [], [], 0.1)[0]:
                    self._output += os.read(self._keys, 65536)

    @property
    def text(self) -> str:
        return ESCAPES.sub("", self._output.decode("utf-8", "replace"))

    def servers(self) -> list[int]:
        """Servers of its own; imports may start a process for an instant, too."""
        try:
            found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return [int(pid) for pid in found if b"own_server.py" in command_line(int(pid))]
        except (FileNotFoundError, ProcessLookupError):
            return []

    def imports_torch(self) -> bool:
        about = Path(f"/proc/{self.pid}")
        # Until it begins, the process is a copy of this one, which has PyTorch.
        is_begun = b"main.py" in command_line(self.pid)
        return is_begun and "libtorch" in (about / "maps").read_text()

    def ended(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is not None

    def wait(self, condition, what: str) -> None:
        wait_until(lambda: condition() or self.ended(), what)
        assert not self.ended(), self.text

    def press_ctrl_c(self) -> None:
        os.write(self._keys, b"\x03")

    def press_ctrl_c_again_and_again(self) -> None:
        for _ in range(3):
            self.press_ctrl_c()
            time.sleep(0.1)

    def terminate_twice(self) -> None:
        """End it as `timeout` does: the process first, then all of its group."""
        os.kill(self.pid, signal.SIGTERM)
        os.killpg(self.pid, signal.SIGTERM)

    def close_window(self) -> None:
        self._closing.set()
        self._reader.join()
        os.close(self._keys)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def code(self) -> int | None:
        wait_until(self.ended, "the run ends", SOON_S)
        self._reader.join()
        return self._code


@pytest.fixture(scope="module")
def alone(pipeline_of, tmp_path_factory) -> Pipeline:
    """A pipeline without a server, of a user who has no home and a narrow terminal."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "tmp").mkdir()
    env = {"HOME": "/proc/nowhere", "TMPDIR": str(folder / "tmp"), "COLUMNS": "40"}
    env |= {"NO_COLOR": "1", "TERM": "dumb", "PREFECT_HOME": "/proc/nowhere/prefect"}
    return replace(pipeline_of(folder), env=env, preloaded=None)


def start_run(pipeline: Pipeline) -> Terminal:
    command = pipeline.command("--vae.epochs=100000")
    env = {**pipeline.env, "PYTHONPATH": str(pipeline.project)}
    return Terminal(command, env, pipeline.folder)


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def no_longer(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def checkpoints(pipeline: Pipeline) -> dict[Path, int]:
    found = pipeline.scratch.glob("work/vae-*/*.safetensors")
    return {path: path.stat().st_mtime_ns for path in found}


def test_ctrl_c_among_the_imports_leaves_no_traceback(alone):
    run = start_run(alone)
    run.wait(run.imports_torch, "it imports PyTorch")
    run.press_ctrl_c()
    assert run.code() == -signal.SIGINT
    assert "Traceback" not in run.text


def test_ctrl_c_stops_a_run_whose_server_is_still_starting(alone):
    run = start_run(alone)
    run.wait(run.servers, "the server starts")
    servers = run.servers()
    run.press_ctrl_c()
    assert run.code() == 130
    assert STOPPED in run.text
    assert "Traceback" not in run.text
    assert no_longer(servers)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (Terminal.press_ctrl_c_again_and_again, 130),
        (Terminal.terminate_twice, 143),
        (Terminal.close_window, 129),
        (Terminal.kill, -signal.SIGKILL),
    ],
)
def test_a_run_ends_with_its_server_and_leaves_its_checkpoint(end, code, alone):
    run, before = start_run(alone), checkpoints(alone)
    run.wait(lambda: TRAINING in run.text, "training begins")
    run.wait(lambda: checkpoints(alone) != before, "an epoch is over")
    servers = run.servers()
    assert len(servers) == 1
    end(run)
    assert run.code() == code
    assert checkpoints(alone)
    assert "Traceback" not in run.text
    if code in (130, 143):
        assert STOPPED in run.text
    wait_until(lambda: no_longer(servers), "its server has ended", SOON_S)
    if code > 0:
        assert not any((alone.folder / "tmp").glob("cxrmodel-*"))
