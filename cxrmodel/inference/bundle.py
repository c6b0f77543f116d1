"""The bundle: one folder, or zip archive, that holds all that using a model needs.

`model.safetensors` has the weights of both networks and what "usual" latents are; `model.json` the
preprocessing, the labels, thresholds and calibration; `reference.parquet` the validation images'
scores; `test.parquet` those of the test images, by which it is compared with another site;
`train.parquet` what tells an image or patient of train or validation again; `README.md` is for
people.
`SHA256SUMS` lists the others with their checksums, as `sha256sum --check` reads it.
Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.zip import ZipFileSystem
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from cxrmodel.data.files.unforeseen import UNFORESEEN, failures
from cxrmodel.data.images import grey
from cxrmodel.errors import DamagedArtifactError
from cxrmodel.inference.bundle_contents import (
    check_description,
    check_reference,
    check_seen,
    check_tensors,
    check_test,
)

FORMAT, FORMAT_VERSION = "cxrmodel-bundle", 1
FIRST_GREY_LEVELS = "grey-1"  # of bundles that do not say it
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
REFERENCE = "reference.parquet"
TRAIN = "train.parquet"
TEST = "test.parquet"
CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
FILES = (WEIGHTS, DESCRIPTION, REFERENCE, TRAIN, TEST, CARD)

MAX_BYTES = {WEIGHTS: 4 << 30, **dict.fromkeys((REFERENCE, TRAIN, TEST), 1 << 30)}  # far too much
MAX_BYTES_OF_TEXT = 16 << 20  # of each of the others
MAX_BYTES_OF_ARCHIVE = 8 << 30
MAX_ROWS = 10_000_000
AGAIN = "Copy the bundle again from where it was made"


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, every checksum verified but that of `train.parquet`.

    Attributes:
        location: Where it was read.
        digest: sha256 of its list of checksums: the identity of the model.
        description: Content of `model.json`.
        tensors: Content of `model.safetensors`.
        reference: A row per validation image: `patient` (a number without meaning elsewhere),
            `view`, `sex`, `age`, `source` (its data set), `status` (`ok` or what the gate says,
            null where it has not looked), `l1`, `sharpness` (null likewise), `distance`, `mu_00`
            and so on, and per label `y_<label>` (1, 0, or null where unknown) and `p_<label>`.
        test: A row per test image: `patient` (hashed as in `train.parquet`), `crc32`, `view`,
            `sex`, `age`, and per label `y_<label>` and `p_<label>`; None in a bundle that was
            made before bundles had it.
    """

    location: str
    digest: str
    description: dict[str, Any]
    tensors: dict[str, Tensor]
    reference: pd.DataFrame
    test: pd.DataFrame | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classifier tells, in order; nothing where the train images had no labels."""
        return tuple(self.description["labels"])


def read_bundle(location: str | Path) -> Bundle:
    """Read a bundle, and verify every file but `train.parquet`: see `read_train_table`.

    Args:
        location: Folder, zip archive, or fsspec URL of one of them.

    Raises:
        DamagedArtifactError: A file is missing or differs from its checksum, or it is no bundle.
        ValueError: It has a format that this version does not read.
    """
    files = _BundleFiles(str(location))
    checksums = files.read(CHECKSUMS)
    digest = hashlib.sha256(checksums).hexdigest()
    expected = _parse_checksums(checksums, files)
    names = {DESCRIPTION, WEIGHTS, REFERENCE} | (set(expected) - {TRAIN})
    contents = {name: _verified(files, name, expected) for name in sorted(names)}
    description = _parse_description(contents[DESCRIPTION], files)
    with _refused(files, WEIGHTS):
        tensors = load(contents[WEIGHTS])
        check_tensors(tensors)
    with _refused(files, REFERENCE):
        reference = _read_parquet(contents[REFERENCE])
        check_reference(reference, description)
    if TEST not in expected:
        return Bundle(files.location, digest, description, tensors, reference)
    with _refused(files, TEST):
        test = _read_parquet(contents[TEST])
        check_test(test, description)
    return Bundle(files.location, digest, description, tensors, reference, test)


def read_train_table(bundle: Bundle) -> pd.DataFrame:
    """Return what tells the images and patients again that the model was made with.

    Returns:
        Columns `crc32` (of an image's pixels as this model sees them), `patient` (the id's
        HMAC-SHA256 under the bundle's salt, in hexadecimal), `split` and `hash` (64 bytes, as
        of `hash_images`), a row per image of train and validation. A bundle that was made before
        bundles had test images has the train images alone, and neither `split` nor `hash`.

    Raises:
        DamagedArtifactError: The file is missing or differs from its checksum.
    """
    content = read_file(bundle, TRAIN)
    with _refused(_BundleFiles(bundle.location), TRAIN):
        seen = _read_parquet(content)
        check_seen(seen)
    return seen


def patient_hash(salt: str, patient: object) -> str:
    """Return what `train.parquet` has for a patient: the id's HMAC-SHA256 under the salt."""
    return hmac.new(salt.encode(), str(patient).encode(), hashlib.sha256).hexdigest()


def read_file(bundle: Bundle, name: str) -> bytes:
    """Return a file of a bundle that `read_bundle` does not keep in memory, verified.

    Raises:
        DamagedArtifactError: The file is missing or differs from its checksum.
    """
    files = _BundleFiles(bundle.location)
    return _verified(files, name, _parse_checksums(files.read(CHECKSUMS), files))


def save_weights(tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Write `model.safetensors`, for whoever may read the other files."""
    path = directory / WEIGHTS
    # Not save_file, which makes a file that only its owner may read.
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def write_checksums(directory: Path) -> None:
    """Write `SHA256SUMS` over a finished bundle's files."""
    names = [name for name in FILES if name != TEST or (directory / name).exists()]
    lines = [f"{_sha256(directory / name)}  {name}\n" for name in names]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="ascii")


class _BundleFiles:
    """The files of a folder or archive, wherever it lies."""

    def __init__(self, location: str) -> None:
        self.location = location
        try:
            archive, inside = _split_archive(location)
            if archive:
                content = _read_whole(archive)
                self._fs = ZipFileSystem(content, skip_instance_cache=True)
                self._root = inside
            else:
                self._fs, self._root = fsspec.core.url_to_fs(location)
            self._root = self._root.rstrip("/")
            if archive and not self._fs.exists(self._path(CHECKSUMS)):
                self._root = self._only_folder()  # an archive of a folder, as most tools make it
        except FileNotFoundError as error:
            raise DamagedArtifactError(f"There is nothing at {location}.") from error
        except failures() as error:
            raise self._not_opened(error) from error

    def read(self, name: str) -> bytes:
        path, most = self._path(name), MAX_BYTES.get(name, MAX_BYTES_OF_TEXT)
        try:
            with self._fs.open(path, "rb") as stream:
                content = bytes(stream.read(most + 1))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, KeyError) as error:
            raise DamagedArtifactError(
                f"{self.location or 'An empty path'} is not a whole bundle: it has no {name}. "
                f"A bundle is the folder that holds {CHECKSUMS}, as a run's stage `bundle` "
                "writes it."
            ) from error
        except failures() as error:
            raise self._not_opened(error) from error
        if len(content) > most:
            raise DamagedArtifactError(
                f"{self.location}/{name} has more than {most:,} bytes, and no bundle has. {AGAIN}."
            )
        return content

    def _not_opened(self, error: Exception) -> DamagedArtifactError:
        return DamagedArtifactError(
            f"{self.location} cannot be opened: {error}. Give a folder, a zip archive, or a URL "
            "of a protocol whose package is installed, as s3://bucket/bundle."
        )

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if self._root else name

    def _only_folder(self) -> str:
        """Return the one folder with a list of checksums; other tools' folders may be beside it."""
        found = [name for name in self._fs.find("") if posixpath.basename(name) == CHECKSUMS]
        return posixpath.dirname(found[0]) if len(found) == 1 else ""


def _split_archive(location: str) -> tuple[str, str]:
    """Return where the zip archive lies, empty for a folder, and the folder in it that is meant."""
    first, is_chain, rest = location.partition("::")
    protocol, _, inside = first.partition("://")
    if is_chain and protocol == "zip":
        return rest, inside
    path = location.partition("?")[0] if "://" in location else location  # a signed URL
    is_archive = path.casefold().endswith(".zip") and not Path(location).is_dir()
    return (location, "") if is_archive else ("", "")


def _read_whole(archive: str) -> io.BytesIO:
    """Read an archive into memory: some web servers give no part of a file."""
    files, path = fsspec.core.url_to_fs(archive)
    size = files.size(path)
    if size is not None and size > MAX_BYTES_OF_ARCHIVE:
        raise ValueError(f"it has {size:,} bytes, and no bundle has")
    return io.BytesIO(files.cat_file(path))


def _parse_checksums(text: bytes, files: _BundleFiles) -> dict[str, str]:
    lines = text.decode("ascii", errors="replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64})  ([\w.]+)", line) for line in lines]
    if not all(found):
        raise DamagedArtifactError(f"{files.location}/{CHECKSUMS} is damaged. {AGAIN}.")
    return {match[2]: match[1] for match in found if match}


def _verified(files: _BundleFiles, name: str, expected: Mapping[str, str]) -> bytes:
    content = files.read(name)
    if hashlib.sha256(content).hexdigest() != expected.get(name):
        raise DamagedArtifactError(
            f"{files.location}/{name} differs from its checksum in {CHECKSUMS}. {AGAIN}."
        )
    return content


def _parse_description(content: bytes, files: _BundleFiles) -> dict[str, Any]:
    where = f"{files.location}/{DESCRIPTION}"
    try:
        description = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedArtifactError(f"{where} is not JSON: {error}. {AGAIN}.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DamagedArtifactError(f"{where} does not describe a {FORMAT}.")
    version = description.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"{where} has format version {version!r}, and this version of cxrmodel reads "
            f"{FORMAT_VERSION}. {_install(description)}"
        )
    method = description.get("grey_levels", FIRST_GREY_LEVELS)
    if method != grey.METHOD:
        raise ValueError(
            f"{where} needs the grey levels {method!r}, and this version of cxrmodel makes "
            f"{grey.METHOD!r}: the model would see other images than in training. "
            f"{_install(description)}"
        )
    with _refused(files, DESCRIPTION):
        check_description(description)
    return description


def _install(description: Mapping[str, Any]) -> str:
    wrote_it = description.get("made_by", "it does not say which")
    return f"Install the version that wrote it: {wrote_it}."


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has the number {name}")


def _read_parquet(content: bytes) -> pd.DataFrame:
    num_rows = pq.ParquetFile(io.BytesIO(content)).metadata.num_rows
    if num_rows > MAX_ROWS:
        raise ValueError(f"it has {num_rows:,} rows, more than {MAX_ROWS:,}")
    return pd.read_parquet(io.BytesIO(content))


@contextmanager
def _refused(files: _BundleFiles, name: str) -> Iterator[None]:
    """Say of which file it is that something is wrong."""
    try:
        yield
    except (SafetensorError, pa.ArrowException, *UNFORESEEN) as error:
        text = str(error).rstrip(".")
        raise DamagedArtifactError(
            f"{files.location}/{name} cannot be used: {text}. {AGAIN}."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mahalanobis(
    mu: NDArray[np.float64], mean: NDArray[np.float64], precision: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of latents from the train images' distribution.

    Args:
        mu: (N, Z) posterior means.
        mean: (Z,) of the train images.
        precision: (Z, Z), inverse of their covariance.

    Returns:
        (N,), 0 at the mean; about the root of Z for a usual image.
    """
    centred = mu - mean
    square = np.einsum("nz,zy,ny->n", centred, precision, centred)
    return np.asarray(np.sqrt(np.maximum(square, 0)))
