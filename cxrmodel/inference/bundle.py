"""The bundle: one folder, or zip archive, that holds all that using a model needs.

`model.safetensors` has the weights of both networks and what "usual" latents are; `model.json` the
preprocessing, the labels, thresholds and calibration; `reference.parquet` the validation images'
scores; `train.parquet` what tells a training image or patient again; `README.md` is for people.
`SHA256SUMS` lists the others with their checksums, as `sha256sum --check` reads it.
Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from cxrmodel.errors import DamagedArtifactError

FORMAT, FORMAT_VERSION = "cxrmodel-bundle", 1
WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
REFERENCE = "reference.parquet"
TRAIN = "train.parquet"
CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
FILES = (WEIGHTS, DESCRIPTION, REFERENCE, TRAIN, CARD)

MAX_BYTES = 4 << 30  # of one file: far more than any network here
AGAIN = "Copy the bundle again from where it was made"


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, every checksum verified.

    Attributes:
        location: Where it was read.
        digest: sha256 of its list of checksums: the identity of the model.
        description: Content of `model.json`.
        tensors: Content of `model.safetensors`.
        reference: A row per validation image: `patient` (a number without meaning elsewhere),
            `view`, `sex`, `age`, `l1`, `distance`, `mu_00` and so on, and per label `y_<label>`
            (0, 1) and `p_<label>`.
    """

    location: str
    digest: str
    description: dict[str, Any]
    tensors: dict[str, Tensor]
    reference: pd.DataFrame

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classifier tells, in order."""
        return tuple(self.description["labels"])


def read_bundle(location: str | Path) -> Bundle:
    """Read and verify a bundle.

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
    contents = {
        name: _verified(files, name, expected) for name in (DESCRIPTION, WEIGHTS, REFERENCE)
    }
    description = _parse_description(contents[DESCRIPTION], files)
    try:
        tensors = load(contents[WEIGHTS])
        reference = pd.read_parquet(io.BytesIO(contents[REFERENCE]))
    except (SafetensorError, pa.ArrowException, ValueError) as error:
        raise DamagedArtifactError(f"{files.location} cannot be read: {error}. {AGAIN}.") from error
    return Bundle(files.location, digest, description, tensors, reference)


def read_train_table(bundle: Bundle) -> pd.DataFrame:
    """Return what tells training images and patients again.

    Returns:
        Columns `crc32` (of an image's pixels as this model sees them) and `patient` (the id's
        HMAC-SHA256 under the bundle's salt, in hexadecimal), a row per train image.

    Raises:
        DamagedArtifactError: The file is missing or differs from its checksum.
    """
    return pd.read_parquet(io.BytesIO(read_file(bundle, TRAIN)))


def read_file(bundle: Bundle, name: str) -> bytes:
    """Return a file of a bundle that `read_bundle` does not keep in memory, verified.

    Raises:
        DamagedArtifactError: The file is missing or differs from its checksum.
    """
    files = _BundleFiles(bundle.location)
    return _verified(files, name, _parse_checksums(files.read(CHECKSUMS), files))


def write_checksums(directory: Path) -> None:
    """Write `SHA256SUMS` over a finished bundle's files."""
    lines = [f"{_sha256(directory / name)}  {name}\n" for name in FILES]
    (directory / CHECKSUMS).write_text("".join(lines), encoding="ascii")


class _BundleFiles:
    """The files of a folder or archive, wherever it lies."""

    def __init__(self, location: str) -> None:
        self.location = location
        url = location if "::" in location or not _is_zip(location) else f"zip::{location}"
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
            self._root = root.rstrip("/")
            if url.startswith("zip::") and not self._fs.exists(self._path(CHECKSUMS)):
                self._root = self._only_folder()  # an archive of a folder, as most tools make it
        except (ImportError, ValueError, BadZipFile) as error:
            raise DamagedArtifactError(
                f"{location} cannot be opened: {error}. Give a folder, a zip archive, or a URL "
                "of a protocol whose package is installed, as s3://bucket/bundle."
            ) from error
        except FileNotFoundError as error:
            raise DamagedArtifactError(f"There is nothing at {location}.") from error

    def read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            size = self._fs.info(path)["size"]
            if size > MAX_BYTES:
                raise DamagedArtifactError(f"{self.location}/{name} has {size:,} bytes.")
            return bytes(self._fs.cat_file(path))
        except (FileNotFoundError, NotADirectoryError, KeyError) as error:
            raise DamagedArtifactError(
                f"{self.location} is no whole bundle: it has no {name}. A bundle is the folder "
                f"that holds {CHECKSUMS}, as {FORMAT}'s stage `bundle` writes it."
            ) from error
        except BadZipFile as error:
            raise DamagedArtifactError(f"{self.location}: {error}. {AGAIN}.") from error

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if self._root else name

    def _only_folder(self) -> str:
        found = [name for name in self._fs.ls("", detail=False) if name]
        return str(found[0]).rstrip("/") if len(found) == 1 else ""


def _is_zip(location: str) -> bool:
    return location.casefold().endswith(".zip")


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
        description = json.loads(content)
    except ValueError as error:
        raise DamagedArtifactError(f"{where} is no JSON: {error}. {AGAIN}.") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise DamagedArtifactError(f"{where} does not describe a {FORMAT}.")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{where} has format version {version}, and this version of cxrmodel reads "
            f"{FORMAT_VERSION}. Install the version that wrote it, {description.get('made_by')}."
        )
    return description


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
    return np.asarray(np.sqrt(np.einsum("nz,zy,ny->n", centred, precision, centred)))
