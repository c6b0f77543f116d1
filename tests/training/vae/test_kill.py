import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from cxrmodel.config import VAEConfig

CONFIG = VAEConfig(epochs=30, batch_size=4, latent_dim=4, lr=1e-3, checkpoint_every_s=1e-6)
NUM_KILLS = 20

# PyTorch is imported once; each training is a child of its own, and computes on one thread.
TRAIN_IN_CHILDREN = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import NARROW, draw_discs, write_split
import torch
from cxrmodel.config import VAEConfig
from cxrmodel.training.vae.fit import fit_vae
import cxrmodel.models.vae as network
import cxrmodel.training.speed as speed
torch.set_num_threads(1)
network.CHANNELS = NARROW
speed.REPORT_EVERY_S = 0.0
root, pixels = Path(sys.argv[2]), draw_discs(24)
split, config = write_split(root / "split", pixels), VAEConfig.model_validate_json(sys.argv[3])
(root / "killed").mkdir(exist_ok=True)
while True:
    child = os.fork()
    if child == 0:
        print("child", os.getpid(), flush=True)
        fit_vae(config, pixels, split, root / "killed", checkpoints=root / "c", device="cpu",
                report=lambda progress: print("step", progress.done, flush=True))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def test_twenty_kills_at_random_instants_change_nothing(fit, tmp_path):
    """A checkpoint follows each step, so that most kills fall into the writing of one."""
    unbroken, _ = fit("unbroken", CONFIG, checkpoints="a")
    arguments = [Path(__file__).parents[1], tmp_path, CONFIG.model_dump_json()]
    command = [sys.executable, "-c", TRAIN_IN_CHILDREN, *map(str, arguments)]
    kills = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        for line in trainer.stdout:
            word, number = line.split()
            if word == "child":
                child, is_alive = int(number), True
            elif is_alive and kills < NUM_KILLS:
                time.sleep(random.uniform(0, 0.02))  # within a step or two and their checkpoints
                os.kill(child, signal.SIGKILL)
                is_alive, kills = False, kills + 1
    assert trainer.returncode == 0
    assert kills == NUM_KILLS
    for name in ("vae.safetensors", "history.parquet", "config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (unbroken / name).read_bytes()
