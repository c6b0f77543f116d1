"""Runs of the pipeline that are forked from a process which has done the imports.

The imports take longer than a run from the cache. This file is also the program of that process.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path


class Preloaded:
    """A process that forks a run per request, one after the other.

    Args:
        program: The pipeline's `flows/main.py`.
        env: Environment of the process; a run has its own.
        folder: For what runs print.
    """

    def __init__(self, program: Path, env: dict[str, str], folder: Path) -> None:
        self._output = [folder / "stdout", folder / "stderr"]
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(program)],
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self, arguments: list[str], env: dict[str, str], folder: Path, timeout_s: float
    ) -> tuple[int, str, str]:
        """Run the pipeline in a folder; return its exit code, output and errors."""
        request = {"arguments": arguments, "env": env, "folder": str(folder)}
        request["output"] = [str(path) for path in self._output]
        alarm = threading.Timer(timeout_s, self.kill)
        alarm.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        finally:
            alarm.cancel()
        stdout, stderr = (path.read_text() for path in self._output)
        assert answer, f"not within {timeout_s:.0f} s: {stderr}"
        return int(answer), stdout, stderr

    def kill(self) -> None:
        """End the process and its run."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def fork_runs(program: str) -> None:
    """Answer each request with the exit code of its run; returns in the fork, to run there."""
    for line in sys.stdin:
        request = json.loads(line)
        fork = os.fork()
        if fork == 0:
            become(program, request)
            return
        _, status = os.waitpid(fork, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    raise SystemExit(0)


def become(program: str, request: dict) -> None:
    """Take the arguments, the environment, the folder and the streams of a request."""
    sys.argv = [program, *request["arguments"]]
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["folder"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    streams = [os.open(path, flags) for path in request["output"]]
    for number, stream in enumerate([os.open(os.devnull, os.O_RDONLY), *streams]):
        os.dup2(stream, number)
        os.close(stream)


if __name__ == "__main__":
    import flows.main  # noqa: F401 - the imports that every run shares

    fork_runs(sys.argv[1])
    runpy.run_path(sys.argv[0], run_name="__main__")
