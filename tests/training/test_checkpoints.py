import errno
import json
import logging
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from cxrmodel.errors import ScratchSpaceError
from cxrmodel.training.checkpoints import Checkpoint, CheckpointFolder


def checkpoint_of(step: int) -> Checkpoint:
    history = [{"epoch": 1, "val_loss": 0.5, "val_l1": None}]
    return Checkpoint(step, history, 1, 4, 1, {"weights": torch.full((1000,), float(step))})


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(tmp_path / "checkpoints", run_key="this run")


def test_a_checkpoint_comes_back_as_it_was(folder):
    folder.save(checkpoint_of(7))
    loaded = folder.load()
    assert (loaded.step, loaded.best_epoch) == (7, 1)
    assert loaded.history == checkpoint_of(7).history
    assert torch.equal(loaded.tensors["weights"], torch.full((1000,), 7.0))
    assert [path.name for path in folder.directory.iterdir()] == ["last.safetensors"]


def test_nothing_is_no_checkpoint(folder, caplog):
    assert folder.load() is None
    assert caplog.text == ""


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "header"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, caplog, damage):
    folder.save(checkpoint_of(1))
    folder.save(checkpoint_of(2))
    content = bytearray(folder.last.read_bytes())
    if damage == "truncate":
        del content[-100:]
    elif damage == "flip":
        content[-100] ^= 1
    elif damage == "empty":
        content.clear()
    else:
        content[:8] = b"\xff" * 8
    folder.last.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert folder.load().step == 1
    assert "Not continuing from" in caplog.text
    assert "it is damaged" in caplog.text


def test_the_damaged_checkpoint_does_not_take_the_place_of_the_good_one(folder):
    folder.save(checkpoint_of(1))
    folder.save(checkpoint_of(2))
    folder.last.write_bytes(b"")
    folder.load()
    folder.save(checkpoint_of(3))
    folder.last.write_bytes(b"")
    assert folder.load().step == 1


def test_a_checkpoint_of_other_settings_is_refused(folder, caplog):
    folder.save(checkpoint_of(1))
    with caplog.at_level(logging.WARNING):
        assert CheckpointFolder(folder.directory, "another run").load() is None
    assert "it belongs to a training with other settings or data" in caplog.text
    assert "No checkpoint in" in caplog.text


def test_a_checkpoint_of_another_format_is_refused(folder, caplog):
    folder.directory.mkdir()
    header = {"format": 99, "run_key": "this run"}
    save_file({"a": torch.ones(1)}, folder.last, {"checkpoint": json.dumps(header)})
    with caplog.at_level(logging.WARNING):
        assert folder.load() is None
    assert "its format is 99, and this version reads 3" in caplog.text


def test_a_pickle_is_not_run(folder, caplog, tmp_path):
    folder.directory.mkdir()

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save(Bomb(), folder.last)
    assert folder.load() is None
    assert not (tmp_path / "ran").exists()


def test_the_best_is_kept_apart(folder, caplog):
    folder.save_best(checkpoint_of(3))
    folder.save(checkpoint_of(5))
    assert folder.load_best().step == 3
    (folder.directory / "best.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        assert folder.load_best() is None
    assert "weights of the best epoch" in caplog.text


def test_a_full_disk_is_a_named_error_and_leaves_the_last_one(folder, monkeypatch):
    folder.save(checkpoint_of(1))

    def refuse(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ScratchSpaceError, match=r"No space left.*choose another store\.scratch"):
        folder.save(checkpoint_of(2))
    assert folder.load().step == 1
    assert [path.name for path in folder.directory.iterdir()] == ["last.safetensors"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_flush_a_folder_keeps_checkpoints_too(folder, monkeypatch, code):
    flush = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    folder.save(checkpoint_of(1))
    assert folder.load().step == 1


def test_a_folder_that_cannot_be_made_is_a_named_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = CheckpointFolder(tmp_path / "file" / "checkpoints", "this run")
    with pytest.raises(ScratchSpaceError, match=r"choose another store\.scratch"):
        folder.save(checkpoint_of(1))


WRITE_FOR_EVER = """
import sys
from pathlib import Path
import torch
from cxrmodel.training.checkpoints import Checkpoint, CheckpointFolder
folder = CheckpointFolder(Path(sys.argv[1]), "this run")
for step in range(10**6):
    folder.save(Checkpoint(step, [], 0, 4, 1, {"weights": torch.full((200_000,), float(step))}))
    print(step, flush=True)
"""


def test_a_kill_at_any_instant_leaves_a_whole_checkpoint(folder):
    for num_writes in (1, 3, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, folder.directory],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(num_writes):
            written = int(process.stdout.readline())
        process.kill()
        process.communicate()
        loaded = folder.load()
        assert loaded.step >= written - 1
        assert torch.equal(loaded.tensors["weights"], torch.full((200_000,), float(loaded.step)))
