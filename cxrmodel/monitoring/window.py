"""The window: which scored images are looked at, and what is known of the people in them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from cxrmodel.config import ALL_VIEWS, DataConfig
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.errors import DataError
from cxrmodel.inference.bundle import Bundle, patient_hash, read_train_table
from cxrmodel.inference.score_parts import MANIFESTS, PartRecord, ScoreParts, image_name
from cxrmodel.inference.use_config import ImagesAndPeople, MonitorConfig
from cxrmodel.places import absolute
from cxrmodel.storage.layout import INDEX_FILE
from cxrmodel.storage.small_files import open_small_files

MAX_SOURCES = 20
PEOPLE = ["patient_id", "view", "sex", "age"]
NO_SOURCE = ""


@dataclass(frozen=True)
class Window:
    """Scored images.

    Attributes:
        rows: A table of images, as `cxrmodel.monitoring.quantities` tells, with `image`, `version`,
            `source` and `scored_at`; in the order of their names.
        num_seen: Images that were left out since the model was made with their patient.
        notes: What a reader has to know of it, a sentence each.
    """

    rows: pd.DataFrame
    num_seen: int
    notes: tuple[str, ...]

    @property
    def num_patients(self) -> int:
        """How many people it shows."""
        return int(self.rows["patient"].nunique())


def read_window(config: MonitorConfig, bundle: Bundle) -> Window:
    """Read the images that were scored last.

    Args:
        config: Which ones.
        bundle: What scored them.

    Raises:
        DataError: The bundle has scored nothing there, or the tables of the images cannot be used.
        DamagedArtifactError: A part is damaged.
        StoreError: The scores are another bundle's, or cannot be opened.
    """
    parts = ScoreParts(config.place_of_scores, bundle.digest)
    records = parts.records()
    if not records:
        raise DataError(_no_scores(config, bundle, parts.location))
    people = _people_of(config.data, config.store.scratch)
    is_seen = _SeenPatients(bundle)
    tables: list[pd.DataFrame] = []
    num_seen, last = 0, ""
    for key, record in sorted(records.items(), key=lambda item: item[1].scored_at, reverse=True):
        if config.since and record.scored_at < config.since:
            break
        if sum(map(len, tables)) >= config.newest and record.scored_at != last:
            break
        last = record.scored_at
        rows = _rows_of(parts, key, record).merge(people, on="image", how="left", validate="1:1")
        seen = rows["patient_id"].map(is_seen).astype(bool)
        num_seen += int(seen.sum())
        tables.append(rows[~seen])
    if not tables:
        raise DataError(
            f"No image was scored since {config.since}; the last ones of {parts.location} were at "
            f"{max(record.scored_at for record in records.values())}. Give an earlier date."
        )
    rows = _newest(pd.concat(tables, ignore_index=True), config.newest)
    is_known = rows["patient_id"].notna()
    if config.data.root and not is_known.any() and not num_seen:
        raise DataError(
            f"None of the scored images, such as {rows['image'].iloc[0]}, is among the "
            f"{len(people):,} of data.root {config.data.root}. Give the root that was scored, or "
            "none."
        )
    # An image of nobody is its own patient; no id begins with such a mark.
    rows["patient"] = rows["patient_id"].where(is_known, "\0" + rows["image"])
    rows = rows.drop(columns="patient_id").sort_values("image", ignore_index=True)
    return Window(rows, num_seen, _notes(config, int((~is_known).sum()), len(rows)))


def _newest(rows: pd.DataFrame, num: int) -> pd.DataFrame:
    """Return the newest rows, one per image, with their sources."""
    rows["source"] = _sources(rows)
    # Those of one part were scored together: a hash draws among them, names would favour some.
    rows["draw"] = [hashlib.sha256(name.encode()).hexdigest() for name in rows["image"]]
    rows = rows.sort_values(["scored_at", "draw"], ascending=False, kind="stable")
    return rows.drop_duplicates("image").head(num).drop(columns=["draw", "root", "name"])


def _rows_of(parts: ScoreParts, key: str, record: PartRecord) -> pd.DataFrame:
    names = {image_name(record.root, name): name for name in record.versions}
    rows = parts.read(key)
    return rows.assign(
        scored_at=record.scored_at, root=record.root, name=rows["image"].map(names).fillna("")
    )


def _sources(rows: pd.DataFrame) -> pd.Series:
    """Return where each image comes from: its root where there are several, or its first folder."""
    if len(rows["root"].unique()) > 1:
        return rows["root"]
    folders = rows["name"].str.partition("/")
    first = folders[0].where(folders[1] != "", NO_SOURCE)
    is_few = 1 < first.nunique() <= MAX_SOURCES
    return first if is_few else pd.Series(NO_SOURCE, rows.index)


def _people_of(data: ImagesAndPeople, scratch: str) -> pd.DataFrame:
    """Return patient, view, sex and age of each image that a table or DICOM tags tell of."""
    if not data.root:
        return pd.DataFrame({name: pd.Series(dtype="object") for name in ["image", *PEOPLE]})
    given = data.model_dump() | {"root": absolute(data.root, Path.cwd()), "views": ALL_VIEWS}
    config = DataConfig(**given)
    source = scan_source(config, Path(scratch))
    with TemporaryDirectory() as folder:
        build_index(config, source, Path(folder))
        index = pd.read_parquet(Path(folder) / INDEX_FILE, columns=["uri", *PEOPLE])
    index["image"] = [image_name(source.root, uri) for uri in index["uri"]]
    return index[["image", *PEOPLE]]


def _notes(config: MonitorConfig, num_unknown: int, num: int) -> tuple[str, ...]:
    if not config.data.root:
        return (
            "Nothing tells whose the images are: each counts as another patient's, so several of "
            "one patient may look like drift. Images of patients of train or validation are not "
            "left out. Give data.root, the folder that was scored: its tables or DICOM tags tell.",
        )
    if num_unknown:
        return (
            f"No table or tag tells whose {num_unknown:,} of the {num:,} images are: each of them "
            "counts as another patient's.",
        )
    return ()


class _SeenPatients:
    """Tells whether a patient, null where unknown, is one of train or validation."""

    def __init__(self, bundle: Bundle) -> None:
        self._salt = bundle.description["salt"]
        self._hashes = set(read_train_table(bundle)["patient"])

    def __call__(self, patient: object) -> bool:
        return isinstance(patient, str) and patient_hash(self._salt, patient) in self._hashes


def _no_scores(config: MonitorConfig, bundle: Bundle, location: str) -> str:
    found = open_small_files(config.place_of_scores).find()
    others = sorted({name.split("/")[0] for name in found if f"/{MANIFESTS}/" in name})
    known = f" It holds those of the bundles {', '.join(others)}." if others else ""
    return (
        f"{config.place_of_scores} has no scores of the bundle {bundle.location}: there is nothing "
        f"in {location}.{known} Run flows/score.py with this bundle first, or give in scores the "
        "folder that it wrote to."
    )


def digest_of(window: Window, bundle: Bundle, config: MonitorConfig) -> str:
    """Return what tells a window from others: its images, what is known of them, the settings."""
    rows = window.rows[["image", "version", "status", "patient", "source", *PEOPLE[1:]]]
    # What is known, not its value: another processor rounds otherwise, a newer version knows more.
    known = window.rows.notna().sum().to_dict()
    content = json.dumps([bundle.digest, config.level, window.notes, window.num_seen, known])
    text = rows.to_json(orient="values", double_precision=6)
    return hashlib.sha256(f"{content}\n{text}".encode()).hexdigest()
