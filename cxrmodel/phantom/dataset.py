"""Writes a set of synthetic images in the layout of NIH ChestX-ray14."""

import os
import uuid
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from cxrmodel.data.datasets.boxes import BOX_GRID_PX
from cxrmodel.machine import usable_cores
from cxrmodel.phantom.findings import BOXED_FINDINGS
from cxrmodel.phantom.image import check_size, draw_image, image_boxes
from cxrmodel.phantom.population import Entry, sample_entries

ENTRY_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
"""Header of NIH's v2020 CSV: its unquoted brackets make four columns of two."""

BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
"""Header of NIH's box list, which is malformed in the original."""

ORIGINAL_SIZES = {
    "PA": ("2992,2991,0.14300000000000002,0.14300000000000002", "2048,2500,0.168,0.168"),
    "AP": ("2500,2048,0.168,0.168", "3056,2544,0.139,0.139"),
}
"""Width, height and pixel spacing in mm of the originals, the most frequent ones at NIH."""

TEST_SHARE = 0.23
MODIFIED_S = 1504224000
"""Modification time of every file, 2017-09-01T00:00:00Z: equal sets then have equal listings."""

Report = Callable[[int, int], None]


def write_phantoms(
    root: Path,
    num_images: int,
    *,
    seed: int = 0,
    size_px: int = 1024,
    workers: int | None = None,
    report: Report | None = None,
) -> None:
    """Write a synthetic data set in the layout of NIH ChestX-ray14.

    Images go to `root/images`; `Data_Entry_2017_v2020.csv`, `BBox_List_2017.csv`,
    `train_val_list.txt` and `test_list.txt` follow once all images are there. An image that is
    there is not drawn again, so a stopped run goes on where it stopped, and a larger set extends a
    smaller one of the same seed. The same arguments give the same bytes for any number of workers.

    Unlike NIH, which boxed 880 images, the box list covers every image with a boxed finding.

    Args:
        root: Folder of the data set, created if absent.
        num_images: Images to write; a few more rows of the CSV have no image, as at NIH's mirrors.
        seed: Seed of the patients, their findings and their images.
        size_px: Side of every image in pixels, a multiple of 64.
        workers: Threads that draw; one per core if None.
        report: Called with (images there, images in all), from the calling thread.

    Raises:
        ValueError: If an argument is out of range, or `root` holds images of another seed or size.
    """
    check_size(size_px)
    for field, value, least in (("num_images", num_images, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{field} must be {least} or more, got {value}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be 1 or more, or None for one per core, got {workers}")
    entries = sample_entries(num_images, seed)
    images = root / "images"
    images.mkdir(parents=True, exist_ok=True)
    _refuse_other_set(images, entries, size_px)
    _draw_missing(images, [e for e in entries if not e.missing], size_px, workers, report)
    _write_lists(root, entries, size_px)


def _draw_missing(
    images: Path, entries: list[Entry], size_px: int, workers: int | None, report: Report | None
) -> None:
    todo = [entry for entry in entries if not (images / entry.file_name).exists()]
    done = len(entries) - len(todo)
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        jobs = [pool.submit(_write_image, images, entry, size_px) for entry in todo]
        try:
            for job in as_completed(jobs):
                job.result()
                done += 1
                if report:
                    report(done, len(entries))
        finally:
            # After an error or an interrupt, images that are not begun yet are not wanted.
            pool.shutdown(cancel_futures=True)


def _write_image(images: Path, entry: Entry, size_px: int) -> None:
    image = Image.fromarray(draw_image(entry.spec, size_px))
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", _provenance(entry, size_px))
    target = images / entry.file_name
    part = _part_of(target)
    image = image.convert("RGBA") if entry.rgba else image
    # Run-length matching suits grain: a fifth smaller and faster than the default.
    image.save(part, format="PNG", pnginfo=info, compress_level=1, compress_type=zlib.Z_RLE)
    _publish(part, target)


def _provenance(entry: Entry, size_px: int) -> str:
    """Return the text in every PNG that tells it from a patient's image."""
    return f"synthetic chest phantom, no patient; seed {entry.spec.seed}, {size_px} px"


def _refuse_other_set(images: Path, entries: list[Entry], size_px: int) -> None:
    """Compare the first image that is there, since one run writes them all alike."""
    for entry in entries:
        path = images / entry.file_name
        if path.exists():
            with Image.open(path) as image:
                found = image.info.get("Comment", "an image of unknown origin")
            if found != _provenance(entry, size_px):
                raise ValueError(
                    f"root must be empty or hold images of this seed and size; {path} is "
                    f"{found!r}, expected {_provenance(entry, size_px)!r}: choose another folder"
                )
            return


def _part_of(target: Path) -> Path:
    """Return where to write a file first; two processes that draw it at once differ."""
    return target.with_suffix(f".{uuid.uuid4().hex}.part")


def _publish(part: Path, target: Path) -> None:
    """Give a finished file its fixed time, then its name, so that no reader sees half of one."""
    os.utime(part, (MODIFIED_S, MODIFIED_S))
    part.replace(target)


def _write_lines(target: Path, lines: Iterable[str]) -> None:
    part = _part_of(target)
    part.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    _publish(part, target)


def _write_lists(root: Path, entries: list[Entry], size_px: int) -> None:
    train_val, test = _official_split(entries)
    _write_lines(root / "train_val_list.txt", train_val)
    _write_lines(root / "test_list.txt", test)
    _write_lines(root / "BBox_List_2017.csv", [BOX_HEADER, *_box_rows(entries)])
    rows = [_entry_row(entry) for entry in entries]
    _write_lines(root / "Data_Entry_2017_v2020.csv", [ENTRY_HEADER, *rows])


def _entry_row(entry: Entry) -> str:
    spec = entry.spec
    original = ORIGINAL_SIZES[spec.view][spec.patient_id % 2]
    return (
        f"{entry.file_name},{entry.labels},{spec.follow_up},{spec.patient_id},{spec.age},"
        f"{spec.sex},{spec.view},{original}"
    )


def _box_rows(entries: list[Entry]) -> list[str]:
    """Return the boxes grouped by finding, as NIH lists them: whatever the size, in its pixels."""
    rows = []
    for entry in entries:
        if not entry.missing:
            for finding, box in image_boxes(entry.spec, BOX_GRID_PX):
                numbers = ",".join(f"{number:.12f}" for number in box)
                rows.append((BOXED_FINDINGS[finding], entry.file_name, numbers))
    return [f"{name},{finding},{numbers}" for finding, name, numbers in sorted(rows)]


def _official_split(entries: list[Entry]) -> tuple[list[str], list[str]]:
    """Split the file names of all rows by patient, about 77 to 23."""
    train_val: list[str] = []
    test: list[str] = []
    for entry in entries:
        draw = np.random.default_rng([entry.spec.seed, entry.spec.patient_id, 97]).random()
        (test if draw < TEST_SHARE else train_val).append(entry.file_name)
    return train_val, test
