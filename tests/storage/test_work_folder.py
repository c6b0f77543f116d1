import multiprocessing
import shutil
import threading

import pytest

from cxrmodel.storage.work_folder import own_work_folder


def test_what_is_left_in_it_is_there_the_next_time(tmp_path):
    with own_work_folder(tmp_path / "work", "vae-1") as folder:
        assert folder == tmp_path / "work/vae-1"
        (folder / "checkpoint").write_text("half way")
    with own_work_folder(tmp_path / "work", "vae-1") as folder:
        assert (folder / "checkpoint").read_text() == "half way"


def test_an_empty_one_vanishes_and_one_removed_meanwhile_is_no_error(tmp_path):
    with own_work_folder(tmp_path, "empty"):
        pass
    with own_work_folder(tmp_path, "removed") as folder:
        (folder / "checkpoint").touch()
        shutil.rmtree(folder)
    assert list(tmp_path.iterdir()) == []


def test_others_at_the_same_time_get_folders_beside_it(tmp_path):
    with own_work_folder(tmp_path, "vae") as one, own_work_folder(tmp_path, "vae") as other:
        assert (one.name, other.name) == ("vae", "vae-2")
        with own_work_folder(tmp_path, "vae") as third:
            assert third.name == "vae-3"
        with own_work_folder(tmp_path, "vae") as again:
            assert again.name == "vae-3"


def hold(folder, ready):
    with own_work_folder(folder, "vae") as work:
        (work / "checkpoint").write_text("half way")
        ready.send(work.name)
        ready.recv()


def test_a_killed_process_leaves_it_to_the_next(tmp_path):
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(tmp_path, theirs))
    holder.start()
    assert ours.recv() == "vae"
    with own_work_folder(tmp_path, "vae") as beside:
        assert beside.name == "vae-2"
    holder.kill()
    holder.join()
    with own_work_folder(tmp_path, "vae") as folder:
        assert (folder / "checkpoint").read_text() == "half way"


@pytest.mark.parametrize("num_threads", [4])
def test_one_that_its_owner_removes_is_never_given_to_two(num_threads, tmp_path):
    held, wrong = set(), []

    def take_and_remove():
        for _ in range(200):
            with own_work_folder(tmp_path, "vae") as folder:
                if folder in held or not folder.is_dir():
                    wrong.append(folder)
                held.add(folder)
                held.discard(folder)
                shutil.rmtree(folder)

    threads = [threading.Thread(target=take_and_remove) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
