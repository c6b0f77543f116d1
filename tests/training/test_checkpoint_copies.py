import errno
import logging
import os
import time

import fsspec
import pytest
import torch

from cxrmodel.config import VAEConfig
from cxrmodel.storage.remote import RemoteFolder
from cxrmodel.training.checkpoint_copies import CheckpointCopies
from cxrmodel.training.checkpoints import Checkpoint, CheckpointFolder

STEPS_PER_EPOCH = 4  # 14 train images of the 24, in batches of 4


class Interruption(BaseException):
    pass


@pytest.fixture
def store():
    """A store in memory, empty."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield RemoteFolder(fs, "/bucket/_checkpoints/vae-1")
    fs.store.clear()


def checkpoint(step, best_epoch=0):
    return Checkpoint(step, [], best_epoch, 4, 1, {"weights": torch.full((100,), float(step))})


def folder(path, store, run_key="key"):
    return CheckpointFolder(path, run_key, CheckpointCopies(store, 1e-9))


def save(checkpoints, *steps, best_epoch=0):
    for step in steps:
        checkpoints.save(checkpoint(step, best_epoch))
        checkpoints.finish_copies(step, best_epoch)


def test_another_machine_continues_from_the_copy(store, tmp_path):
    save(folder(tmp_path / "one", store), 3, 7)
    found = folder(tmp_path / "other", store).load()
    assert found.step == 7
    assert torch.equal(found.tensors["weights"], torch.full((100,), 7.0))
    assert (tmp_path / "other" / "last.safetensors").is_file()


def test_the_two_newest_are_kept(store, tmp_path):
    save(folder(tmp_path, store), 1, 2, 3, 4)
    assert store.names() == ["step-0000000003.safetensors", "step-0000000004.safetensors"]


def test_what_lies_here_and_is_further_wins(store, tmp_path):
    save(folder(tmp_path / "one", store), 3)
    CheckpointFolder(tmp_path / "here", "key").save(checkpoint(5))
    assert folder(tmp_path / "here", store).load().step == 5


def test_a_machine_that_was_overtaken_takes_the_copy(store, tmp_path):
    save(folder(tmp_path / "one", store), 3)
    save(folder(tmp_path / "other", store), 9)
    assert folder(tmp_path / "one", store).load().step == 9


def test_a_damaged_copy_falls_back_to_the_one_before(store, tmp_path, caplog):
    save(folder(tmp_path / "one", store), 3, 7)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"not a checkpoint")
    store.put(damaged, "step-0000000007.safetensors")
    with caplog.at_level(logging.WARNING):
        assert folder(tmp_path / "other", store).load().step == 3
    assert "it is damaged" in caplog.text


def test_a_copy_of_another_training_is_refused(store, tmp_path, caplog):
    save(folder(tmp_path / "one", store), 3)
    with caplog.at_level(logging.WARNING):
        assert folder(tmp_path / "other", store, run_key="another").load() is None
    assert "other settings or data" in caplog.text


def test_the_best_weights_travel_too(store, tmp_path):
    one = folder(tmp_path / "one", store)
    one.save_best(checkpoint(2, best_epoch=1))
    save(one, 2, best_epoch=1)
    other = folder(tmp_path / "other", store)
    assert other.load().best_epoch == 1
    assert other.load_best().step == 2


def test_best_weights_that_are_lost_cost_no_copy_of_the_rest(store, tmp_path):
    one = folder(tmp_path / "one", store)
    one.save_best(checkpoint(2, best_epoch=1))
    save(one, 2, best_epoch=1)
    store.remove("best-epoch-0000000001.safetensors")
    other = folder(tmp_path / "other", store)
    assert other.load().step == 2
    save(other, 3, best_epoch=1)
    assert store.names() == ["step-0000000002.safetensors", "step-0000000003.safetensors"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV])
def test_a_disk_without_hard_links_has_copies_too(store, tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    save(folder(tmp_path / "one", store), 3)
    assert folder(tmp_path / "other", store).load().step == 3
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["last.safetensors"]


def test_a_file_that_is_not_there_costs_a_warning_and_no_more(store, tmp_path, caplog):
    copies = CheckpointCopies(store, 1e-9)
    (tmp_path / "there").write_text("a checkpoint")
    files = {"there": tmp_path / "there", "missing": tmp_path / "missing"}
    with caplog.at_level(logging.WARNING):
        copies.finish(files, 3)
    assert "could not copy step 3" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_damaged_copy_never_displaces_a_good_checkpoint(store, tmp_path, caplog):
    save(folder(tmp_path / "one", store), 9)
    CheckpointFolder(tmp_path / "here", "key").save(checkpoint(5))
    (tmp_path / "damaged").write_bytes(b"not a checkpoint")
    store.put(tmp_path / "damaged", "step-0000000009.safetensors")
    with caplog.at_level(logging.WARNING):
        assert folder(tmp_path / "here", store).load().step == 5
    assert "Not continuing from the copy step-0000000009.safetensors" in caplog.text
    assert CheckpointFolder(tmp_path / "here", "key").load().step == 5


def test_what_a_killed_attempt_was_sending_does_not_stay(store, tmp_path):
    save(folder(tmp_path, store), 3)
    (tmp_path / "0123abcd.copy").write_bytes(b"a checkpoint")
    assert folder(tmp_path, store).load().step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.safetensors"]


def test_names_that_are_not_ours_are_left_alone(store, tmp_path):
    stranger = tmp_path / "stranger"
    stranger.write_text("notes")
    store.put(stranger, "notes.txt")
    copies = CheckpointCopies(store, 1e-9)
    save(CheckpointFolder(tmp_path / "one", "key", copies), 1, 2, 3)
    copies.clear()
    assert store.names() == ["notes.txt"]


def test_a_store_out_of_reach_costs_a_warning_and_no_more(store, tmp_path, caplog, monkeypatch):
    def refuse(*_):
        raise ConnectionError("no route to the store")

    for name in ("names", "put", "get"):
        monkeypatch.setattr(RemoteFolder, name, refuse)
    with caplog.at_level(logging.WARNING):
        save(folder(tmp_path, store), 4)
        assert folder(tmp_path, store).load().step == 4
    assert "could not copy step 4 (no route to the store)" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors"]


def test_copies_are_not_made_more_often_than_asked(store, tmp_path):
    checkpoints = CheckpointFolder(tmp_path, "key", CheckpointCopies(store, 3600))
    checkpoints.save(checkpoint(1))
    for step in (2, 3):
        checkpoints.save(checkpoint(step))
    save(checkpoints, 4)
    assert store.names() == ["step-0000000001.safetensors", "step-0000000004.safetensors"]


@pytest.fixture
def slow_store(store, monkeypatch):
    """A store that takes a while to write to."""
    put = RemoteFolder.put

    def later(*args):
        time.sleep(0.5)
        put(*args)

    monkeypatch.setattr(RemoteFolder, "put", later)
    return store


def after_epoch(number):
    """Interrupt once the checkpoint of an epoch is written, before the next step."""

    def interrupt(progress):
        if progress.done == STEPS_PER_EPOCH * number:
            raise Interruption

    return interrupt


@pytest.mark.parametrize("every_s", [1e-9, 3600])
def test_what_was_saved_just_before_an_interruption_has_a_copy(fit, slow_store, every_s):
    config = VAEConfig(epochs=3, batch_size=4, latent_dim=4, lr=1e-3)
    copies = CheckpointCopies(slow_store, every_s)
    with pytest.raises(Interruption):
        fit(config=config, copies=copies, report=after_epoch(2))
    assert f"step-{2 * STEPS_PER_EPOCH:010d}.safetensors" in slow_store.names()


def test_a_copy_that_takes_too_long_is_told_and_ends_nothing(
    slow_store, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("cxrmodel.training.checkpoint_copies.FINAL_WAIT_S", 0.1)
    with caplog.at_level(logging.WARNING):
        save(folder(tmp_path, slow_store), 4)
    assert "step 4 was not copied within 0 s" in caplog.text


def test_no_copy_is_made_of_a_checkpoint_that_was_not_written(store, tmp_path, caplog):
    CheckpointFolder(tmp_path / "here", "another").save(checkpoint(5))
    with caplog.at_level(logging.WARNING):
        folder(tmp_path / "here", store).finish_copies(0, 0)
        folder(tmp_path / "empty", store).finish_copies(3, 0)
    assert store.names() == []
    assert caplog.records == []


def test_a_training_that_moves_to_another_machine_equals_unbroken(
    fit, report_every_step, store, tmp_path
):
    config = VAEConfig(epochs=3, batch_size=4, latent_dim=4, lr=1e-3, weights="best")
    unbroken, _ = fit("unbroken", config, checkpoints="a")

    def interrupt(progress):
        if progress.done >= 7:
            raise Interruption

    with pytest.raises(Interruption):
        fit("one", config, checkpoints="b", copies=CheckpointCopies(store, 1e-9), report=interrupt)
    done = []
    moved, _ = fit(
        "other",
        config,
        checkpoints="elsewhere",
        copies=CheckpointCopies(store, 1e-9),
        report=lambda progress: done.append(progress.done),
    )
    assert min(done) >= 7
    for name in ("vae.safetensors", "vae_last.safetensors", "history.parquet", "config.json"):
        assert (moved / name).read_bytes() == (unbroken / name).read_bytes()
