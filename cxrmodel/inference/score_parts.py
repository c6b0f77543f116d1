"""The scores of one bundle as Parquet parts: `<out>/<bundle>/<key>.parquet`.

A part holds the rows of up to some two thousand images. Its key is a digest of the images' names
and versions and one of its content: written twice, by two scorers or after a kill, it is the same
file, or another one, never a mixture. Beside the parts, where readers of Parquet do not look,
`_manifests/<key>.json` tells what each holds and how it was made. The manifest is written first and
the part last: a part that is there is whole, and known.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.storage.small_files import open_small_files

MANIFESTS = "_manifests"
PART, MANIFEST = ".parquet", ".json"
FORMAT, FORMAT_VERSION = "cxrmodel-scores", 1
DIGEST_CHARS = 16
NUM_LOOKS = 3


@dataclass(frozen=True)
class PartRecord:
    """What a manifest tells of a part.

    Attributes:
        bundle: Digest of the bundle.
        root: Folder or URL of the images.
        versions: Version of each image as it was scored, by its name below the root.
        bytes: Size of the part.
        sha256: Of the part.
        made_by: Version of this package.
        scored_at: When, ISO 8601 in UTC.
        statuses: How many images have which status.
    """

    bundle: str
    root: str
    versions: dict[str, str]
    bytes: int
    sha256: str
    made_by: str
    scored_at: str
    statuses: dict[str, int]


def shard_key(bundle: str, root: str, versions: Mapping[str, str]) -> str:
    """Return the start of the key of a part that holds these images."""
    content = json.dumps([bundle, root, sorted(versions.items())]).encode()
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]


def image_name(root: str, name: str) -> str:
    """Return the path or URL of an image, given its root and its name below that."""
    place, is_chain, rest = root.partition("::")
    if is_chain:  # the first link names what is read of the archive that follows
        place = place if "://" in place else f"{place}://"
        return f"{place if place.endswith('/') else f'{place}/'}{name}::{rest}"
    return f"{place.rstrip('/')}/{name}"


class ScoreParts:
    """The parts of one bundle in an output.

    Args:
        out: Folder or URL of the output.
        bundle: Digest of the bundle.

    Attributes:
        location: Where the parts are, for `pandas.read_parquet`.
    """

    def __init__(self, out: str, bundle: str) -> None:
        self.location = f"{out.rstrip('/')}/{bundle[:DIGEST_CHARS]}"
        self._bundle = bundle
        self._files = open_small_files(self.location)
        self._known: dict[str, PartRecord] = {}
        self._refuse_output_of_one_bundle(out)

    def records(self) -> dict[str, PartRecord]:
        """Return the record of each part that is there, by key; one listing and new manifests.

        Raises:
            DamagedArtifactError: A part is of another size than recorded, or has no manifest, or
                a manifest cannot be read.
            StoreError: The parts are of another bundle.
        """
        sizes, contents = self._listed()
        self._known |= {key: self._parse(key, content) for key, content in contents.items()}
        self._known = {key: record for key, record in self._known.items() if key in sizes}
        for key, record in self._known.items():
            if sizes[key] != record.bytes:
                raise DamagedArtifactError(
                    f"{self.location}/{key}{PART} has {sizes[key]:,} bytes instead of "
                    f"{record.bytes:,}. Delete it, and run again: its images are scored anew."
                )
        return self._known

    def _listed(self) -> tuple[dict[str, int], dict[str, bytes]]:
        """Return the size of each part and the manifests that are not known yet, by key."""
        for _ in range(NUM_LOOKS):  # another scorer may remove a part while this one looks
            found = self._files.find()
            sizes = {
                name.removesuffix(PART): size for name, size in found.items() if name.endswith(PART)
            }
            strangers = [key for key in sizes if _manifest(key) not in found]
            if strangers:
                continue
            try:
                new = {_manifest(key): key for key in sizes if key not in self._known}
                contents = self._files.read(new)
            except FileNotFoundError:
                continue
            return sizes, {new[name]: content for name, content in contents.items()}
        what = (
            f"{strangers[0]}{PART} has no manifest"
            if strangers
            else "its parts change all the time"
        )
        raise DamagedArtifactError(
            f"{self.location}: {what}. A part that this package did not write has to be moved "
            "away; then run again."
        )

    def holds(self, shard: str) -> bool:
        """Say whether a part of this shard is there now."""
        return any(name.startswith(shard) for name in self._files.find())

    def read(self, key: str) -> pd.DataFrame:
        """Return the rows of a part that `records` has named.

        Raises:
            DamagedArtifactError: Its content is another one than recorded.
        """
        name = f"{key}{PART}"
        content = self._files.read([name])[name]
        if hashlib.sha256(content).hexdigest() != self._known[key].sha256:
            raise DamagedArtifactError(
                f"{self.location}/{name} is damaged: its content is not the one that was written. "
                "Delete it, and run flows/score.py again: its images are scored anew."
            )
        table: pd.DataFrame = pd.read_parquet(io.BytesIO(content))
        return table

    def write(self, rows: pd.DataFrame, versions: Mapping[str, str], **about: str) -> str:
        """Write a part and, before it, its manifest.

        Args:
            rows: A row per image.
            versions: Version of each image, by its name below the root.
            about: `root`, `made_by` and `scored_at` of its record.

        Returns:
            Its key.
        """
        content = _to_parquet(rows)
        record = PartRecord(
            bundle=self._bundle,
            versions=dict(sorted(versions.items())),
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            statuses={str(name): int(n) for name, n in rows["status"].value_counts().items()},
            **about,
        )
        shard = shard_key(self._bundle, record.root, versions)
        key = f"{shard}-{record.sha256[:DIGEST_CHARS]}"
        head = {"format": FORMAT, "format_version": FORMAT_VERSION}
        text = json.dumps({**head, **asdict(record)}, indent=1)
        self._files.write(_manifest(key), f"{text}\n".encode())
        self._files.write(f"{key}{PART}", content)
        return key

    def remove(self, key: str) -> None:
        """Remove a part and then its manifest."""
        self._files.remove(f"{key}{PART}")
        self._files.remove(_manifest(key))

    def leave_out(self, key: str, names: Collection[str]) -> None:
        """Replace a part by one without some images: first the new one comes, then the old goes.

        Args:
            key: The part.
            names: Names of the images below the root.
        """
        record = self._known[key]
        versions = {name: v for name, v in record.versions.items() if name not in names}
        if versions:
            rows = self.read(key)
            unwanted = [image_name(record.root, name) for name in names]
            rows = rows[~rows["image"].isin(unwanted)].reset_index(drop=True)
            about = {name: getattr(record, name) for name in ("root", "made_by", "scored_at")}
            self.write(rows, versions, **about)
        self.remove(key)

    def _parse(self, key: str, content: bytes) -> PartRecord:
        where = f"{self.location}/{_manifest(key)}"
        try:
            fields: dict[str, Any] = json.loads(content)
            if (fields.pop("format"), fields.pop("format_version")) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"it is no {FORMAT} of version {FORMAT_VERSION}")
            record = PartRecord(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedArtifactError(
                f"{where} cannot be read: {error}. Delete it and {key}{PART}, and run again: its "
                "images are scored anew."
            ) from error
        if record.bundle != self._bundle:
            raise StoreError(
                f"{self.location} holds scores of bundle {record.bundle[:DIGEST_CHARS]}, and this "
                f"is {self._bundle[:DIGEST_CHARS]}: somebody moved them there. Give another "
                "--out, or move them away."
            )
        return record

    def _refuse_output_of_one_bundle(self, out: str) -> None:
        """Refuse to write below the parts of a bundle, where they would be read as its own."""
        if any(name.endswith(MANIFEST) for name in open_small_files(f"{out}/{MANIFESTS}").find()):
            raise StoreError(
                f"{out} holds the scores of one bundle itself. Give the folder above it as --out: "
                "each bundle has its own folder there."
            )


def _manifest(key: str) -> str:
    return f"{MANIFESTS}/{key}{MANIFEST}"


def _to_parquet(rows: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), stream, compression="zstd")
    return stream.getvalue()
