import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

TERMINATED = """
import os, signal, time
from cxrmodel.cluster.session import connected

class Terminated(BaseException):
    pass

def terminate(*_):
    raise Terminated

signal.signal(signal.SIGTERM, terminate)
try:
    with connected("local"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
except Terminated:
    time.sleep(4)  # Ray's own handler aborts after three
    print("had time for a checkpoint")
"""


def test_a_termination_leaves_time_for_the_last_checkpoint():
    pytest.importorskip("ray", reason="Ray is not installed")
    ended = subprocess.run(
        [sys.executable, "-c", TERMINATED], capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "had time for a checkpoint"
