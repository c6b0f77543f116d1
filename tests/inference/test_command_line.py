"""The command `cxrmodel`, as a user types it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from tempfile import gettempdir
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from cxrmodel.inference import command_line
from cxrmodel.inference.bundle import write_checksums
from cxrmodel.inference.command_line import FEW_IMAGES, main
from cxrmodel.inference.maps import map_name, write_map
from cxrmodel.inference.predictor import load
from cxrmodel.inference.score_files import read_about
from cxrmodel.training.encoding import Coder


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code not in (0, None)
    return capsys.readouterr().err


def test_a_folder_is_scored_into_parquet(run, bundle, model, tmp_path, capsys):
    out = tmp_path / "new" / "scores.parquet"
    main(["predict", str(bundle), str(run.root / "images"), "--out", str(out)])
    pd.testing.assert_frame_equal(pd.read_parquet(out), model.predict(run.root / "images"))
    assert read_about(out)["bundle"] == model.bundle.digest
    assert "300 images (ok " in capsys.readouterr().out


def test_threads_are_tried_for_many_images_only(run, bundle, tmp_path, monkeypatch):
    trials = []
    monkeypatch.setattr(command_line, "use_threads", lambda: trials.append(1))
    paths = [str(path) for path in sorted((run.root / "images").iterdir())[: FEW_IMAGES + 1]]
    for given, num_trials in ((paths[:1], 0), (paths[:-1], 0), (paths, 1), ([run.root], 1)):
        trials.clear()
        out = tmp_path / "scores.csv"
        main(["predict", str(bundle), *map(str, given), "--out", str(out)])
        assert len(trials) == num_trials
        assert len(pd.read_csv(out)) >= len(given)


def test_a_list_on_standard_input_is_scored_into_csv(run, bundle, tmp_path):
    paths = [str(path) for path in sorted((run.root / "images").iterdir())[:3]]
    out = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "cxrmodel", "predict", str(bundle), "-", "--out", str(out)]
    lines = "\n".join([*paths, "", "gone.png\n"])
    subprocess.run(command, input=lines, text=True, check=True)
    table = pd.read_csv(out)
    assert table["image"].tolist() == [*paths, "gone.png"]
    assert table["status"].tolist()[-1] == "unreadable"
    assert json.loads(out.with_name("scores.csv.json").read_text())["operating_points"] == []


def test_operating_points_are_printed_used_and_kept(run, bundle, tmp_path, capsys):
    out = tmp_path / "scores.parquet"
    points = ["--alerts-per-100", "20", "--threshold", "Mass=0.01"]
    main(["predict", str(bundle), str(run.root / "images"), "--out", str(out), *points])
    points = {point["label"]: point for point in read_about(out)["operating_points"]}
    assert points["Mass"]["threshold"] == 0.01
    assert "Mass: threshold 0.0100 gives s" in capsys.readouterr().out
    table = pd.read_parquet(out)
    table = table[table["status"] == "ok"]
    reached = table["p_Effusion"] >= points["Effusion"]["threshold"]
    assert (table["call_Effusion"] == reached).all()


def test_the_case_of_a_label_does_not_count(run, bundle, tmp_path, capsys):
    out, image = tmp_path / "scores.parquet", next((run.root / "images").iterdir())
    points = ["--threshold", "mass=0.02", "--threshold", "PLEURAL_thickening=0.03"]
    main(["predict", str(bundle), str(image), "--out", str(out), *points])
    found = {point["label"]: point["threshold"] for point in read_about(out)["operating_points"]}
    assert found == {"Mass": 0.02, "Pleural_Thickening": 0.03}


def test_a_run_without_any_score_fails_where_that_is_asked_for(run, bundle, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    arguments = ["predict", bundle, "gone.png", "--out", out]
    main([str(argument) for argument in arguments])
    error = refused(capsys, *arguments, "--fail-if-none")
    assert error == f"cxrmodel predict: no image has a score; {out} says why of each.\n"
    assert pd.read_csv(out)["status"].tolist() == ["unreadable"]
    image = next((run.root / "images").iterdir())
    some = [*arguments[:3], image, *arguments[3:], "--fail-if-none", "--no-gate"]
    main([str(argument) for argument in some])


def test_the_networks_run_once_with_maps_too(run, bundle, model, tmp_path, monkeypatch):
    paths = [str(path) for path in sorted((run.root / "images").iterdir())[:3]]
    calls = {"encode": 0, "decode": 0}
    for name in calls:
        monkeypatch.setattr(Coder, name, counted(getattr(Coder, name), name, calls))
    arguments = ["--out", str(tmp_path / "s.parquet"), "--no-gate", "--batch-size", "2"]
    numbers = []
    for more in ([], ["--maps", str(tmp_path / "maps")]):
        calls.update(encode=0, decode=0)
        main(["predict", str(bundle), *paths, *arguments, *more])
        numbers.append(dict(calls))
    assert numbers[0] == numbers[1]
    scored = pd.read_parquet(tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(scored, model.predict(paths, batch_size=2, gate=False))


def counted(function, name, calls):
    def call(*arguments):
        calls[name] += 1
        return function(*arguments)

    return call


def test_maps_are_one_picture_per_image(run, bundle, tmp_path):
    paths = [str(path) for path in sorted((run.root / "images").iterdir())[:2]]
    arguments = ["--out", str(tmp_path / "s.csv"), "--maps", str(tmp_path / "maps"), "--no-gate"]
    main(["predict", str(bundle), *paths, *arguments])
    found = sorted((tmp_path / "maps").iterdir())
    assert len(found) == 2
    with Image.open(found[0]) as picture:
        assert picture.size == (3 * 64 + 2 * 4, 64)


def test_the_name_of_a_map_cannot_leave_its_folder():
    assert map_name(3, "s3://bucket/../..\\x/../evil name.png") == "000003_evil_name.png"
    assert "/" not in map_name(0, "../" * 9)


def test_info_says_what_a_bundle_is(bundle, capsys):
    main(["info", str(bundle)])
    text = capsys.readouterr().out
    assert "210 of 300 images, split by patient" in text
    assert "parent" not in text
    assert "Pneumothorax" in text


def test_recalibration_writes_a_bundle_that_names_its_parent(run, bundle, model, tmp_path, capsys):
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    index["image"] = "images/" + index["image"]
    labels = index[["image", "patient_id", "Effusion", "Infiltration"]]
    labels.to_csv(run.root / "local.csv", index=False)
    out = tmp_path / "local"
    main(["recalibrate", str(bundle), str(run.root / "local.csv"), "--out", str(out)])
    description = json.loads((out / "model.json").read_text())
    assert description["parent"]["digest"] == model.bundle.digest
    assert "the Brier score falls by" in capsys.readouterr().out
    main(["info", str(out)])
    told = capsys.readouterr().out
    names = ", ".join(description["parent"]["recalibrated"])
    assert f"parent       {model.bundle.digest[:16]}; recalibrated for {names}\n" in told
    assert "README.md has the parent's metrics" in told
    card, old = (folder / "README.md" for folder in (out, bundle))
    before, note, after = card.read_text().partition("\n**Recalibrated** from the bundle ")
    assert note
    assert before + after.partition(" is for.\n")[2] == old.read_text()
    assert f"`{model.bundle.digest}`, with new" in after
    assert yaml.safe_load(before.split("---")[1]) == yaml.safe_load(old.read_text().split("---")[1])


def test_an_export_says_in_what_it_computes(bundle, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    copy = shutil.copytree(bundle, tmp_path / "copy")
    main(["export", str(copy), "--onnx", str(tmp_path / "m.onnx")])
    assert "from the model in float32 are" in (told := capsys.readouterr().out)
    assert "bfloat16" not in told
    description = json.loads((copy / "model.json").read_text()) | {"precision": "bfloat16"}
    (copy / "model.json").write_text(json.dumps(description))
    write_checksums(copy)
    main(["export", str(copy), "--onnx", str(tmp_path / "m.onnx")])
    assert "The file computes in float32 and the bundle in bfloat16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "scores.txt"], "has to end in .parquet or .csv"),
        (["--out", "s.csv", "--sensitivity", "90"], "is not a share between 0 and 1"),
        (["--out", "s.csv", "--threshold", "Mass"], "is not LABEL=P"),
        (["--out", "s.csv", "--threshold", "Gout=0.5"], "'Gout' is no label"),
        (["--out", "s.csv", "--device", "cuda:7"], "this machine has"),
        (["--out", "s.csv", "--sensitivity", "0.9", "--specificity", "0.9"], "Give one of"),
        (["--out", "s.csv", "--batch-size", "0"], "whole number from 1"),
        (["--out", "s.csv", "--batch-size", "inf"], "whole number from 1"),
        (["--out", "s.csv", "--batch-size", "1.5"], "is not a whole number"),
        (["--out", "s3://bucket/s.csv"], "is a URL, and has to be a path of this machine"),
        (["--out", "a.png/s.csv"], "--out needs a.png as a folder, and a file is there"),
        (["--out", "s.csv", "--maps", "a.png"], "--maps needs a.png as a folder"),
    ],
)
def test_a_wrong_flag_is_a_sentence(bundle, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").touch()
    text = refused(capsys, "predict", bundle, "a.png", *arguments)
    assert message in text
    assert not list(tmp_path.glob("s*"))


def test_a_missing_bundle_is_said(tmp_path, capsys):
    text = refused(capsys, "info", tmp_path / "nowhere")
    assert "is not a whole bundle: it has no SHA256SUMS" in text


def test_an_alias_needs_its_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "There is no folder champion. If it is an alias" in refused(capsys, "info", "champion")
    assert "has no alias champion" in refused(capsys, "info", "champion", "--store", tmp_path)
    for store, message in (("", "It is empty"), ("https://x/y", "It is on a web server")):
        with pytest.raises(SystemExit):
            main(["info", "champion", "--store", store])
        assert message in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_file_is_said_before_scoring(bundle, tmp_path, capsys):
    (tmp_path / "s.csv").mkdir()
    text = refused(capsys, "predict", bundle, "a.png", "--out", tmp_path / "s.csv")
    assert "s.csv is a folder" in text
    (tmp_path / "m.onnx").mkdir()
    assert "m.onnx is a folder" in refused(capsys, "export", bundle, "--onnx", tmp_path / "m.onnx")


def test_a_list_may_have_any_bytes(run, bundle, tmp_path):
    image = next((run.root / "images").iterdir())
    lines = b"\xef\xbb\xbf%s\r\n   \n\xff.png\n" % os.fsencode(image)
    out = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "cxrmodel", "predict", str(bundle), "-", "--out", str(out)]
    subprocess.run([*command, "--no-gate"], input=lines, check=True)
    assert pd.read_csv(out)["status"].tolist() == ["ok", "unreadable"]


# Not by rusage, which begins with the memory of the process that starts this one.
PEAK_MIB = """
import re, sys
from pathlib import Path
from cxrmodel.inference import command_line
from cxrmodel.inference.command_line import FEW_IMAGES, main

main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_memory_does_not_grow_with_the_number_of_images(bundle, tmp_path):
    shades = np.random.default_rng(0).integers(0, 256, (1024, 1024), dtype=np.uint8)
    Image.fromarray(shades).save(tmp_path / "large.png")
    peaks = []
    for count in (50, 400):
        arguments = ["predict", str(bundle), "-", "--no-gate", "--out", str(tmp_path / "s.csv")]
        ran = subprocess.run(
            [sys.executable, "-c", PEAK_MIB, *arguments],
            input=f"{tmp_path}/large.png\n" * count, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(ran.stdout.split()[-1]))
    assert peaks[1] < peaks[0] + 100  # 350 more images of 1 MiB


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_command_leaves_no_file(run, bundle, tmp_path, number, code):
    image = str(next((run.root / "images").iterdir()))
    out = tmp_path / "scores.csv"
    command = [sys.executable, "-m", "cxrmodel", "predict", str(bundle), "-", "--out", str(out)]
    ignored = signal.signal(number, signal.SIG_DFL)  # as in a job of the background
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
    finally:
        signal.signal(number, ignored)
    with process:
        process.stdin.write(f"{image}\n".encode() * 64)  # and the list is not at its end
        process.stdin.flush()
        while not list(tmp_path.glob("*.partial")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == code
    assert not list(tmp_path.iterdir())


INTERRUPTED_AMONG_IMPORTS = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from cxrmodel.__main__ import main
main()
"""


def test_ctrl_c_among_the_imports_ends_without_a_traceback():
    command = [sys.executable, "-c", INTERRUPTED_AMONG_IMPORTS]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, "", "")


def test_a_command_leaves_signals_as_they_were(bundle):
    now = {signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: signal.SIG_DFL}  # the first as by nohup
    before = {number: signal.signal(number, action) for number, action in now.items()}
    try:
        main(["info", str(bundle)])
        assert {number: signal.getsignal(number) for number in now} == now
    finally:
        for number, action in before.items():
            signal.signal(number, action)


@pytest.fixture
def denied(tmp_path):
    """A folder that this user must not write to."""
    folder = tmp_path / "denied"
    folder.mkdir(mode=0o555)
    if os.geteuid() == 0:  # who may write anywhere
        os.seteuid(65534)
        yield folder
        os.seteuid(0)
    else:
        yield folder


@pytest.mark.parametrize("inside", [".", "new"])
def test_a_folder_that_cannot_be_written_to_is_named(model, denied, monkeypatch, capsys, inside):
    monkeypatch.setattr(command_line, "load", lambda *_, **__: model)
    folder = denied / inside
    for arguments in (
        ["predict", "B", "a.png", "--out", folder / "s.csv"],
        ["predict", "B", "a.png", "--out", f"{gettempdir()}/s.csv", "--maps", folder],
        ["export", "B", "--onnx", folder / "m.onnx"],
        ["recalibrate", "B", "labels.csv", "--out", folder / "bundle"],
    ):
        told = refused(capsys, *arguments)
        assert (
            f"the folder {folder} cannot be written to: Permission denied. Choose another" in told
        )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scores_say_how_they_were_made(run, bundle, model, tmp_path, suffix):
    image, out = str(next((run.root / "images").iterdir())), tmp_path / f"s{suffix}"
    told = []
    for more in ([], ["--calibrated"], ["--no-gate"], ["--threshold", "Mass=0.02"]):
        main(["predict", str(bundle), image, "--out", str(out), *more])
        text = (tmp_path / "s.csv.json").read_text() if suffix == ".csv" else None
        told.append(json.loads(text) if text else read_about(out))
    plain, calibrated, without_gate, with_threshold = told
    assert (plain["calibrated"], plain["gate"]) == (False, True)
    assert plain["thresholds"] == model.thresholds
    assert calibrated["calibrated"] is True
    assert calibrated["thresholds"] == load(bundle, device="cpu", calibrate=True).thresholds
    assert without_gate["gate"] is False
    assert with_threshold["thresholds"] == model.thresholds | {"Mass": 0.02}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_leaves_no_file(run, bundle, tmp_path, suffix):
    out = tmp_path / f"scores{suffix}"
    command = f"ulimit -f 8; exec {sys.executable} -m cxrmodel predict {bundle} {run.root}/images"
    ran = subprocess.run(
        ["bash", "-c", f"{command} --out {out} --no-gate"], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.startswith("cxrmodel predict: ")
    assert "make room there" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_in_a_table_of_labels_is_no_image(run, bundle, tmp_path, capsys):
    index = pd.read_parquet(run.stage("index") / "index.parquet")
    index["image"] = [str(run.root / "images" / name) for name in index["image"]]
    rows = index[["image", "patient_id", "Infiltration"]]
    folder = pd.DataFrame({"image": [str(run.root)], "patient_id": ["1"], "Infiltration": [1]})
    told = []
    for number, table in enumerate((rows, pd.concat([folder, rows]))):
        path, out = tmp_path / f"{number}.csv", tmp_path / f"{number}"
        table.to_csv(path, index=False)
        main(["recalibrate", str(bundle), str(path), "--out", str(out)])
        told.append(capsys.readouterr())
        assert (out / "model.safetensors").stat().st_mode & 0o044 == 0o044
    assert told[0].out.splitlines()[:-1] == told[1].out.splitlines()[:-1]
    assert "1 image of 301 had no score" in told[1].err or "images of 301" in told[1].err


def test_a_reader_that_stops_early_sees_no_error(bundle):
    command = f"{sys.executable} -m cxrmodel info {bundle} | head -c 1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("b", "")


def test_a_map_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    pixels = np.zeros((64, 64), np.uint8)
    with pytest.raises(OSError, match="No space left"):
        write_map(tmp_path / "a.png", pixels, pixels.astype(np.float32))
    assert not list(tmp_path.iterdir())


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("total", "shown"),
    [
        (200, "[############............] 100 of 200 images, 50.0 a second, 0:00:02 left"),
        (None, "100 images, 50.0 a second"),
    ],
)
def test_a_terminal_shows_how_far_it_is(monkeypatch, total, shown):
    terminal, clock = Terminal(), iter([0.0, 2.0])
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(command_line, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = command_line._Progress(total)
    progress.show(100)
    assert terminal.getvalue() == f"\r{shown}\x1b[K"
