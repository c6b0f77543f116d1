"""`cxrmodel predict`, `info`, `export`, `recalibrate`: a bundle from the command line."""

from __future__ import annotations

import argparse
import codecs
import errno
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrmodel.errors import CxrModelError
from cxrmodel.inference.calibration import check_is_new, read_labels, recalibrate, write_bundle
from cxrmodel.inference.image_files import ReadImage, expand, is_local
from cxrmodel.inference.maps import map_name, write_map
from cxrmodel.inference.operating_points import OperatingPoint, operating_points
from cxrmodel.inference.predictor import Model, load
from cxrmodel.inference.score_files import open_score_file
from cxrmodel.places import normal_store
from cxrmodel.storage.aliases import NAME, find_bundle
from cxrmodel.storage.layout import OK
from cxrmodel.threads import use_threads

STANDARD_INPUT = "-"
REPORT_EVERY_S, BAR_CHARS = 0.5, 24
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAKE_ROOM = "The result is not written: make room there, or write it to another disk."
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
ENDING_SIGNALS, EXIT_BY_SIGNAL = ("SIGTERM", "SIGHUP"), 128
MAX_BATCH_SIZE = 4096
FEW_IMAGES = 8  # done before a trial of threads has paid off


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error is a sentence and exit code 1."""
    options = _parser().parse_args(arguments)
    try:
        with _ended_by_signals():
            options.run(options)
    except BrokenPipeError:  # whoever reads the lines has read enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (CxrModelError, ValueError, OSError, MemoryError) as error:
        is_full = isinstance(error, OSError) and error.errno in FULL
        text = f"{error}. {MAKE_ROOM}" if is_full else str(error)
        print(f"cxrmodel {options.command}: {text}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let signals that end a process raise, so that no half-written file stays.

    One that is ignored, as SIGHUP is under nohup, stays so.
    """
    if current_thread() is not main_thread():  # no other may set what a signal does
        yield
        return
    names = [name for name in ENDING_SIGNALS if hasattr(signal, name)]  # not all on Windows
    numbers = [getattr(signal, name) for name in names]
    changed = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in changed:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in changed:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: object) -> None:
    sys.exit(EXIT_BY_SIGNAL + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("cxrmodel", description="Use a trained model.")
    parser.add_argument("--version", action="version", version=version("cxrmodel"))
    commands = parser.add_subparsers(dest="command", required=True)
    _add_predict(commands.add_parser("predict", help="score images"))
    info = commands.add_parser("info", help="say what a bundle is and how good")
    _add_bundle(info)
    info.set_defaults(run=_info)
    export = commands.add_parser("export", help="write the networks as an ONNX file")
    _add_bundle(export)
    export.add_argument("--onnx", type=_local, required=True, metavar="FILE")
    export.add_argument("--reconstruction", action="store_true", help="the decoder too")
    export.set_defaults(run=_export)
    local = commands.add_parser("recalibrate", help="fit thresholds and calibration to a site")
    _add_bundle(local)
    local.add_argument(
        "table", type=Path, help="CSV or Parquet: image, patient_id, and 1 or 0 per label"
    )
    local.add_argument("--out", type=_local, required=True, metavar="DIR", help="the new bundle")
    local.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    local.set_defaults(run=_recalibrate)
    return parser


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", help="folder, zip archive or URL of a bundle; with --store also an alias"
    )
    parser.add_argument(
        "--store",
        type=_store,
        metavar="ROOT",
        help="the store whose aliases count, such as champion",
    )


def _place(options: argparse.Namespace) -> str:
    """Return the place of the bundle that is meant."""
    bundle = str(options.bundle)
    if options.store:
        return find_bundle(bundle, options.store)
    if NAME.fullmatch(bundle) and not Path(bundle).exists():
        raise ValueError(
            f"There is no folder {bundle}. If it is an alias, say of which store: "
            "--store s3://bucket/cxr"
        )
    return bundle


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_predict)
    _add_bundle(parser)
    parser.add_argument(
        "images", nargs="+", help="files, folders or URLs; - reads a list, a line each"
    )
    parser.add_argument("--out", type=_local, required=True, help="FILE.parquet or FILE.csv")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--batch-size", type=_positive, metavar="N", help="default: by size and device"
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="probabilities by Platt scaling on validation"
    )
    parser.add_argument("--maps", type=_local, metavar="DIR", help="write a PNG per image there")
    parser.add_argument(
        "--no-gate", dest="gate", action="store_false", help="score what is no chest X-ray too"
    )
    parser.add_argument(
        "--fail-if-none", action="store_true", help="exit with 1 where no image gets a score"
    )
    points = parser.add_argument_group(
        "operating points", "where a probability becomes a call; each is found on validation images"
    )
    points.add_argument("--sensitivity", type=_share, metavar="SHARE")
    points.add_argument("--specificity", type=_share, metavar="SHARE")
    points.add_argument("--alerts-per-100", type=_per_100, metavar="N")
    points.add_argument(
        "--threshold", type=_label_threshold, action="append", default=[], metavar="LABEL=P"
    )


def _predict(options: argparse.Namespace) -> None:
    model = load(_place(options), device=options.device, calibrate=options.calibrated)
    points = _choose_thresholds(model, options)
    about = {
        "bundle": model.bundle.digest,
        "location": model.bundle.location,
        "made_by": f"cxrmodel {version('cxrmodel')}",
        "calibrated": options.calibrated,
        "gate": options.gate and model.has_gate,
        "thresholds": model.thresholds,
        "operating_points": [asdict(point) for point in points],
    }
    _make_folder(options.out.parent, "--out")
    if options.maps:
        _make_folder(options.maps, "--maps")
    counts: Counter[str] = Counter()
    images = expand(_paths(options.images))
    total = None
    if STANDARD_INPUT not in options.images:  # that may go on and on
        named = list(images)
        images, total = iter(named), len(named)
    progress = _Progress(total)
    with open_score_file(options.out, model.empty_table, about) as file:
        first = list(islice(images, FEW_IMAGES + 1))
        if len(first) > FEW_IMAGES:
            use_threads()
        for batch in model.read_files(
            chain(first, images), batch_size=options.batch_size, gate=options.gate
        ):
            if options.maps:
                table, reconstructions = model.score_and_reconstruct(batch)
                _write_maps(batch, reconstructions, counts.total(), options.maps)
            else:
                table = model.score_read(batch)
            file.write(table)
            counts.update(table["status"])
            progress.show(counts.total())
        progress.end()
    by_status = ", ".join(f"{status} {count:,}" for status, count in counts.most_common())
    print(f"{options.out}: {_images(counts.total())} ({by_status or 'none'})")
    if options.fail_if_none and not counts[OK]:
        raise ValueError(f"no image has a score; {options.out} says why of each.")


def _choose_thresholds(model: Model, options: argparse.Namespace) -> list[OperatingPoint]:
    """Set the thresholds that the options ask for, and print what they give on validation."""
    points = operating_points(
        model.bundle,
        sensitivity=options.sensitivity,
        specificity=options.specificity,
        alerts_per_100=options.alerts_per_100,
        thresholds=dict(options.threshold),
    )
    model.thresholds.update({point.label: point.threshold for point in points})
    for point in points:
        print(point.sentence())
    return points


def _make_folder(folder: Path, option: str) -> None:
    """Make a folder for results, and try whether it takes any: later much may have been scored."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{option} needs {folder} as a folder, and a file is there.") from error
    except OSError as error:
        if error.errno not in DENIED:
            raise
        raise ValueError(
            f"{option}: the folder {folder.absolute()} cannot be written to: {error.strerror}. "
            "Choose another folder, or change its permissions."
        ) from error


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _paths(images: list[str]) -> Iterator[str]:
    return chain.from_iterable(
        _lines_of_standard_input() if image == STANDARD_INPUT else (image,) for image in images
    )


def _lines_of_standard_input() -> Iterator[str]:
    for line in sys.stdin.buffer:  # as bytes: so are the names of files
        text = os.fsdecode(line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n"))
        if text.strip():
            yield text


def _write_maps(
    batch: list[ReadImage], reconstructions: list[NDArray[np.float32]], start: int, folder: Path
) -> None:
    decoded = iter(reconstructions)
    for number, image in enumerate(batch, start):
        if image.pixels is not None:
            write_map(folder / map_name(number, image.image), image.pixels, next(decoded))


class _Progress:
    """A bar on a terminal, or a count where nobody knows how many there are; nothing in a log."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._started_at = self._shown_at = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown_at >= REPORT_EVERY_S:
            rate = done / (now - self._started_at)
            print(f"\r{self._line(done, rate)}\x1b[K", end="", file=sys.stderr)
            self._shown_at = now

    def _line(self, done: int, rate: float) -> str:
        if not self._total:
            return f"{_images(done)}, {rate:.1f} a second"
        bar = ("#" * (BAR_CHARS * done // self._total)).ljust(BAR_CHARS, ".")
        left = timedelta(seconds=round((self._total - done) / rate))
        return f"[{bar}] {done:,} of {_images(self._total)}, {rate:.1f} a second, {left} left"

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)


def _info(options: argparse.Namespace) -> None:
    model = load(_place(options), device="cpu")
    about = model.bundle.description
    data, images = about["data"], about["images"]
    lines = [
        f"bundle       {model.bundle.digest[:16]} (format {about['format_version']})",
        f"trained on   {data['title']}, {_train_images(about)}, split by "
        f"{about['split']['method']}",
        f"images       {images['size']} px, fit {images['fit']}, {about['precision']}",
        f"validation   {_images(len(model.bundle.reference))}",
        f"input gate   {'yes' if model.has_gate else 'no: too few images to learn it from'}",
        f"unusual      l1 above {_number(about['limits']['l1'])} or distance above "
        f"{_number(about['limits']['distance'])}",
        *_parent_lines(about),
        "",
        *_threshold_lines(model),
    ]
    print("\n".join(lines))


def _train_images(about: dict[str, Any]) -> str:
    of_all = f"of {_images(about['data']['num_images'])}"
    num_train = about["split"].get("num_train")
    return f"{num_train:,} {of_all}" if isinstance(num_train, int) else f"part {of_all}"


def _parent_lines(about: dict[str, Any]) -> list[str]:
    parent = about.get("parent")
    if parent is None:
        return []
    labels = ", ".join(parent["recalibrated"])
    return [
        f"parent       {parent['digest'][:16]}; recalibrated for {labels}",
        "             README.md has the parent's metrics, with its probabilities and thresholds",
    ]


def _threshold_lines(model: Model) -> list[str]:
    if not model.labels:
        return ["It classifies nothing: the train images had no labels."]
    width = max(24, *(len(label) + 2 for label in model.labels))
    rows = {"label": "threshold"}
    rows |= {label: _number(model.thresholds[label]) for label in model.labels}
    return [f"{label:<{width}}{threshold:>10}" for label, threshold in rows.items()]


def _export(options: argparse.Namespace) -> None:
    from cxrmodel.inference.onnx import export_onnx  # noqa: PLC0415 - an optional extra

    _make_folder(options.onnx.parent, "--onnx")
    model = load(_place(options), device="cpu")
    found = export_onnx(model, options.onnx, with_reconstruction=options.reconstruction)
    largest = ", ".join(f"{name} {value:.1g}" for name, value in found.items())
    print(f"{options.onnx}: largest differences from the model in float32 are {largest}")
    if (precision := model.bundle.description["precision"]) != "float32":
        print(
            f"The file computes in float32 and the bundle in {precision}, so its scores differ "
            "slightly from those of `cxrmodel predict`."
        )


def _recalibrate(options: argparse.Namespace) -> None:
    check_is_new(options.out)
    _make_folder(options.out.parent, "--out")
    model = load(_place(options), device=options.device)
    local = read_labels(options.table, model.labels)
    # File by file: a folder would be many rows, and the labels would go to other images.
    scores = model.predict_files(
        str(options.table.parent / image) if is_local(image) else image for image in local["image"]
    )
    refused = scores[scores["status"] != "ok"]
    if len(refused):
        print(
            f"{_images(len(refused))} of {len(scores):,} had no score; the first, "
            f"{refused['image'].iloc[0]}: {refused['status'].iloc[0]}, {refused['detail'].iloc[0]}",
            file=sys.stderr,
        )
    new, fits = recalibrate(model.bundle, scores.join(local.drop(columns="image")))
    write_bundle(new, options.out)
    for fit in fits:
        if fit.num_images:
            print(fit.sentence())
    print(f"{options.out}: from {_images(len(scores) - len(refused))}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _positive(text: str) -> int:
    value = _between(text, 1, MAX_BATCH_SIZE, f"a whole number from 1 to {MAX_BATCH_SIZE}")
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)


def _local(text: str) -> Path:
    if "://" in text or "::" in text:
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URL, and has to be a path of this machine. Copy the result from there."
        )
    return Path(text).expanduser()


def _store(text: str) -> str:
    try:
        return normal_store(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    return _between(text, 0, 1, "a share between 0 and 1, as 0.9")


def _per_100(text: str) -> float:
    return _between(text, 0, 100, "a number between 0 and 100")


def _label_threshold(text: str) -> tuple[str, float]:
    label, separator, value = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL=P, as Effusion=0.3")
    return label, _between(value, 0, 1, "a probability between 0 and 1")


def _between(text: str, least: float, most: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value
