"""A Prefect process that ends with the one that started it, however that one ends.

This file is also the program of that process. It runs `python -m prefect`, and ends when the pipe
from its parent closes, which the kernel does even for a parent that is killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO

LOOPBACK = "127.0.0.1"
NO_PROXY = ("no_proxy", "NO_PROXY")  # Python's clients look at the first of these that is set
STOP_S = 40  # a worker's run in training writes its checkpoint
STARTUP_S = 120
READY_EVERY_S = 0.1


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
