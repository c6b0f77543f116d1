"""What a bundle has to hold: whoever writes the checksums can write anything else as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

PRECISIONS = ("float32", "bfloat16")
FITS = ("crop", "pad", "resize")
IMAGES = {"size", "fit", "max_megapixels"}
MAX_SIZE_PX, MAX_MEGAPIXELS = 8192, 1_000_000
MAX_SHOWN = 80
MAX_CRC32 = 2**32 - 1
NUM_BITS = 512  # of a perceptual hash; that module needs more packages than a bundle does
TEXTS = ("view", "sex", "source", "status")  # of a validation image, null where unknown
NUMBERS = ("age", "sharpness")  # likewise

Rule = tuple[str, str, Callable[[Any], bool]]


def check_description(found: Mapping[str, Any]) -> None:
    """Check the content of `model.json`.

    Raises:
        ValueError: A field is missing or cannot be; the message names it.
    """
    _check(found, (("labels", "a list of different names", _are_labels),))
    labels = found["labels"]
    _check(
        found,
        (
            ("images", f"{', '.join(sorted(IMAGES))} and nothing else", _has_exactly(IMAGES)),
            ("images.size", f"a whole number of pixels up to {MAX_SIZE_PX}", _is_size),
            ("images.fit", f"one of {', '.join(FITS)}", lambda fit: fit in FITS),
            ("images.max_megapixels", f"a number up to {MAX_MEGAPIXELS}", _is_megapixels),
            ("precision", f"one of {', '.join(PRECISIONS)}", lambda name: name in PRECISIONS),
            ("architecture.vae", "sizes by name", _is_object),
            ("architecture.classifier", "sizes by name", _is_object),
            ("architecture.vae.latent_dim", "a whole number from 1 on", _is_count),
            (
                "architecture.vae.image_size",
                "the same as images.size",
                lambda size: _is_count(size) and size == found["images"]["size"],
            ),
            (
                "architecture.classifier.latent_dim",
                "that of the VAE",
                lambda dim: dim == found["architecture"]["vae"]["latent_dim"],
            ),
            (
                "architecture.classifier.num_labels",
                "the number of labels",
                lambda num: num == len(labels),
            ),
            ("thresholds", "a probability or null per label", _of_each(labels, _is_threshold)),
            ("calibration", "slope and intercept per label", _of_each(labels, _is_scaling)),
            ("limits", "l1 and distance", _has_exactly({"l1", "distance"})),
            ("limits.l1", "a number or null", _is_number_or_none),
            ("limits.distance", "a number or null", _is_number_or_none),
            ("data.title", "a text", _is_text),
            ("data.num_images", "a whole number from 1 on", _is_count),
            ("split.method", "a text", _is_text),
            ("salt", "a text", _is_text),
            ("parent", "a digest and the recalibrated labels", _is_parent),
        ),
    )


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Check that all weights are numbers that the networks can compute with.

    Raises:
        ValueError: A tensor is of another type, or not finite; the message names it.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is of type {tensor.dtype}, and has to be float32 or float64")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} has values that are not finite")


def check_reference(reference: pd.DataFrame, description: Mapping[str, Any]) -> None:
    """Check the table of the validation images.

    Args:
        reference: As read.
        description: Checked.

    Raises:
        ValueError: A column is missing or has a value that cannot be; the message names it.
    """
    dims = range(description["architecture"]["vae"]["latent_dim"])
    ranges = {
        "patient": (0, max(0, len(reference) - 1)),
        **_scored(description["labels"]),
        **dict.fromkeys(("l1", "distance"), (0, math.inf)),
        **{f"mu_{dim:02d}": (-math.inf, math.inf) for dim in dims},
    }
    _check_numbers(reference, ranges)
    for name in TEXTS:  # a bundle of an older version lacks some
        if name in reference and not reference[name].dropna().map(_is_text).all():
            raise ValueError(f"its column {name} has a value that is no text")
    for name in NUMBERS:
        if name in reference and not pd.api.types.is_numeric_dtype(reference[name].dtype):
            raise ValueError(f"its column {name} is of type {reference[name].dtype}")


def check_test(test: pd.DataFrame, description: Mapping[str, Any]) -> None:
    """Check the table of the test images.

    Args:
        test: As read.
        description: Checked.

    Raises:
        ValueError: A column is missing or has a value that cannot be; the message names it.
    """
    _check_numbers(test, {"crc32": (0, MAX_CRC32), **_scored(description["labels"])})
    _check_texts(test, ("patient",))
    for name in ("view", "sex", "age"):
        _has_one(test, name)


def check_seen(seen: pd.DataFrame) -> None:
    """Check the table that tells images and patients of train and validation again.

    Raises:
        ValueError: A column is missing or has a value that cannot be; the message names it.
    """
    _check_numbers(seen, {"crc32": (0, MAX_CRC32)})
    _check_texts(seen, ("patient",))
    if "hash" not in seen:
        return
    _check_texts(seen, ("split",))
    if not seen["hash"].map(lambda found: isinstance(found, bytes)).all():
        raise ValueError("its column hash has a value that is not bytes")
    if (seen["hash"].map(len) != NUM_BITS // 8).any():
        raise ValueError(f"its column hash has a value that is not {NUM_BITS // 8} bytes long")


def _scored(labels: Sequence[str]) -> dict[str, tuple[float, float]]:
    return {f"{kind}_{label}": (0, 1) for kind in ("y", "p") for label in labels}


def _has_one(table: pd.DataFrame, name: str) -> None:
    if list(table.columns).count(name) != 1:
        raise ValueError(f"it needs one column {name}")


def _check_texts(table: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        _has_one(table, name)
        if not table[name].map(lambda text: isinstance(text, str)).all():
            raise ValueError(f"its column {name} has a value that is no text")


def _check_numbers(table: pd.DataFrame, ranges: Mapping[str, tuple[float, float]]) -> None:
    for name, (least, most) in ranges.items():
        _has_one(table, name)
        column = table[name]
        is_whole = name in ("patient", "crc32") or name.startswith("y_")
        may_be_null = name.startswith("y_")  # where nobody said
        kinds = "iu" if is_whole else "iuf"
        is_plain = isinstance(column.dtype, np.dtype)
        if not (is_plain or may_be_null) or getattr(column.dtype, "kind", "") not in [*kinds]:
            raise ValueError(f"its column {name} is of type {column.dtype}")
        known = column.dropna() if may_be_null else column
        if not known.between(least, most).all():  # null neither
            raise ValueError(f"its column {name} has a value outside {least} to {most}")


def _check(found: Mapping[str, Any], rules: tuple[Rule, ...]) -> None:
    for name, expected, is_right in rules:
        value: Any = found
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if not is_right(value):
            raise ValueError(f"{name} is {_shown(value)}, and has to be {expected}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _are_labels(labels: object) -> bool:
    return (
        isinstance(labels, list)
        and all(isinstance(name, str) and name and name.isprintable() for name in labels)
        and len(set(labels)) == len(labels)
    )


def _has_exactly(keys: set[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and set(value) == keys


def _of_each(labels: list[str], is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda found: (
        isinstance(found, dict)
        and set(found) == set(labels)
        and all(is_right(value) for value in found.values())
    )


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_SIZE_PX


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_megapixels(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MAX_MEGAPIXELS


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_threshold(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 1)


def _is_parent(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and _is_text(value.get("digest"))
        and _are_labels(value.get("recalibrated"))
    )


def _is_scaling(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"slope", "intercept"}
        and all(_is_number_or_none(number) for number in value.values())
        and (value["slope"] is None) == (value["intercept"] is None)
    )
