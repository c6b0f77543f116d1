"""Score what is new in a folder or bucket: one listing, and shards that any number of runs share.

Whether an image is new is told by the version in the listing, against those in the manifests of the
output. The new ones are cut into shards at images that a hash chooses: a run that was killed, or
beside which another one works, cuts the same shards again, even where images were added since.
"""

from __future__ import annotations

import hashlib
import logging
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from cxrmodel.data.files.fsspec_files import archive_hint
from cxrmodel.data.files.listing import IMAGE_SUFFIXES, ListedFile, is_image
from cxrmodel.data.files.root import Root
from cxrmodel.data.images.reader import best_num_workers, read_listed
from cxrmodel.errors import DamagedArtifactError, DataError, ImageError
from cxrmodel.inference.bundle import read_bundle
from cxrmodel.inference.image_files import ReadImage
from cxrmodel.inference.predictor import Model, load
from cxrmodel.inference.score_parts import ScoreParts, image_name, shard_key
from cxrmodel.places import absolute, is_folder, normal_place
from cxrmodel.progress import Progress, ReportProgress, silent
from cxrmodel.storage.disk import check_writable

MIN_SHARD, MEAN_SHARD, MAX_SHARD = 512, 1024, 2048
"""Images of a shard; the last one may have fewer."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Images that are scored together.

    Attributes:
        key: Start of the key of the part that holds them.
        files: The images.
    """

    key: str
    files: tuple[ListedFile, ...]


@dataclass(frozen=True)
class ScoringPlan:
    """What there is to do.

    Attributes:
        bundle: Place of the bundle.
        digest: Its identity.
        root: Folder or URL of the images.
        out: Folder or URL of the output.
        num_listed: Images below the root.
        shards: Those of them that are new or changed, in random order.
        has_outdated: Some image has more rows in the output than one.
        describes: Every image is scored, and its row says as well what tells it again.
    """

    bundle: str
    digest: str
    root: str
    out: str
    num_listed: int
    shards: tuple[Shard, ...]
    has_outdated: bool
    describes: bool = False

    @property
    def num_new(self) -> int:
        """How many images are to be scored."""
        return sum(len(shard.files) for shard in self.shards)


def plan_scoring(bundle: str, root: str, out: str) -> ScoringPlan:
    """Find the images whose scores by a bundle are not in an output yet, or are of another version.

    Args:
        bundle: Folder, zip archive or URL of a bundle; it is read and verified.
        root: Folder or URL of images.
        out: Folder or URL of the output.

    Raises:
        DamagedArtifactError: The bundle or the output is damaged.
        ValueError: The bundle has a format that this version does not read, or the output is a
            folder that cannot be written to.
        DataError: There is no image, or access is denied.
        StoreError: The output holds parts of another bundle, or cannot be opened.
    """
    if is_folder(out):
        check_writable(out=Path(out))
    root = absolute(normal_place(root), Path.cwd())
    digest = read_bundle(bundle).digest
    return plan_listed(bundle, digest, root, out, list_images(root))


def plan_listed(
    bundle: str,
    digest: str,
    root: str,
    out: str,
    listed: Sequence[ListedFile],
    *,
    describes: bool = False,
) -> ScoringPlan:
    """Find those of some images whose scores are not in an output yet.

    Args:
        bundle: Place of the bundle.
        digest: Its identity.
        root: Folder or URL of the images.
        out: Folder or URL of the output; one for plans that describe, another for others.
        listed: The images, sorted by name.
        describes: Score also what the gate would refuse, and add to each row `gate`, its reason or
            nothing, `crc32` of the pixels and `hash`, as of `hash_images`.

    Raises:
        DamagedArtifactError: The output is damaged.
        StoreError: The output holds parts of another bundle, or cannot be opened.
    """
    parts = ScoreParts(out, digest)
    versions, has_outdated = _scored(parts, root)
    new = [file for file in listed if file.version not in versions[file.uri]]
    shards = tuple(
        Shard(shard_key(digest, root, {file.uri: file.version for file in files}), tuple(files))
        for files in cut_shards(new)
    )
    in_turns = tuple(random.sample(shards, len(shards)))  # runs side by side rarely meet
    return ScoringPlan(bundle, digest, root, out, len(listed), in_turns, has_outdated, describes)


def cut_shards(files: Iterable[ListedFile]) -> Iterator[list[ListedFile]]:
    """Cut sorted files into shards of about `MEAN_SHARD`, the same wherever the same files follow.

    A file ends a shard where a hash of its name says so: files that are added or left out change
    the shard that they are in and, rarely, one after it. Source: content-defined chunking, as in
    A. Muthitacharoen et al., A Low-bandwidth Network File System, SOSP 2001.
    """
    shard: list[ListedFile] = []
    for file in files:
        shard.append(file)
        if len(shard) == MAX_SHARD or (len(shard) >= MIN_SHARD and _ends_shard(file)):
            yield shard
            shard = []
    if shard:
        yield shard


def _ends_shard(file: ListedFile) -> bool:
    digest = hashlib.sha256(file.uri.encode()).digest()
    return int.from_bytes(digest[:4]) % (MEAN_SHARD - MIN_SHARD) == 0


def score_shard(
    plan: ScoringPlan,
    shard: Shard,
    *,
    device: str = "auto",
    report: ReportProgress = silent,
) -> dict[str, int]:
    """Score the images of one shard and write its part, unless another run just has.

    An image that cannot be scored has a row with its reason.

    Args:
        plan: What there is to do.
        shard: One of its shards.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        report: Told of the progress.

    Returns:
        How many images got which status; empty where another run has written the part.

    Raises:
        DamagedArtifactError: The bundle is another one than when the work was planned.
        OSError: The root or the output cannot be reached; worth another try.
    """
    parts = ScoreParts(plan.out, plan.digest)
    if parts.holds(shard.key):
        return {}
    model = load(plan.bundle, device=device)
    if model.bundle.digest != plan.digest:
        raise DamagedArtifactError(f"{plan.bundle} was replaced meanwhile. Run again.")
    reader = ListedReader(plan.root, shard.files)
    tables = [_score(plan, model, [])]  # the columns, where there is no batch
    for images in model.read_files(
        reader.names, read=reader.read, num_workers=reader.num_workers, gate=not plan.describes
    ):
        tables.append(_score(plan, model, images))
        done = sum(map(len, tables))
        report(Progress("score", done, len(shard.files), unit="images"))
    rows = pd.concat(tables, ignore_index=True)
    rows.insert(1, "version", pd.Series([file.version for file in shard.files], dtype="str"))
    rows["bundle"] = pd.Series(plan.digest, index=rows.index, dtype="str")
    parts.write(
        rows,
        {file.uri: file.version for file in shard.files},
        root=plan.root,
        made_by=f"cxrmodel {version('cxrmodel')}",
        scored_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return dict(Counter(rows["status"]))


def _score(plan: ScoringPlan, model: Model, images: list[ReadImage]) -> pd.DataFrame:
    rows = model.score_read(images)
    return rows.join(_describe(model, images)) if plan.describes else rows


def _describe(model: Model, images: list[ReadImage]) -> pd.DataFrame:
    """Return what the gate says of images, and what tells them again; null without pixels."""
    # Not for whoever only scores: it needs more packages.
    from cxrmodel.evaluation.perceptual_hash import hash_images  # noqa: PLC0415
    from cxrmodel.evaluation.resolution import to_unit  # noqa: PLC0415

    pixels = [image.pixels for image in images]
    hashes = [None if each is None else hash_images(to_unit(each[None]))[0] for each in pixels]
    return pd.DataFrame(
        {
            "gate": pd.array(model.refusals(pixels), dtype="str"),
            "crc32": pd.array(
                [None if each is None else zlib.crc32(each.data) for each in pixels], "UInt32"
            ),
            "hash": pd.Series(
                [None if each is None else each.tobytes() for each in hashes], dtype=object
            ),
        }
    )


def read_scores(plan: ScoringPlan, listed: Sequence[ListedFile]) -> pd.DataFrame:
    """Return the rows of images, in their order, once all shards of the plan are done.

    Raises:
        DamagedArtifactError: A row is missing.
    """
    versions = pd.Series({image_name(plan.root, each.uri): each.version for each in listed})
    parts = ScoreParts(plan.out, plan.digest)
    tables = [
        rows[rows["version"] == rows["image"].map(versions)]
        for key, record in sorted(parts.records().items())
        if record.root == plan.root
        for rows in [parts.read(key)]
    ]
    rows = pd.concat(tables).drop_duplicates("image").set_index("image")
    missing = versions.index.difference(rows.index)
    if len(missing):
        raise DamagedArtifactError(
            f"{parts.location} lacks {len(missing):,} of {len(versions):,} images, first "
            f"{missing[0]}. Run again: they are scored."
        )
    return rows.loc[versions.index].rename_axis("image").reset_index()


def remove_outdated(plan: ScoringPlan) -> int:
    """Leave one row per image in the output: that of the version that is listed now.

    An image has several after it was replaced, or where two runs cut their shards differently. Of
    rows of the same version the one in the part of the lowest key stays, so that two runs that
    clean up at once agree.

    Returns:
        How many rows went.
    """
    parts = ScoreParts(plan.out, plan.digest)
    holders: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for key, record in sorted(parts.records().items()):
        if record.root == plan.root:
            for name, scored in record.versions.items():
                holders[name].append((scored, key))
    repeated = {name: found for name, found in holders.items() if len(found) > 1}
    if not repeated:
        return 0
    now = {file.uri: file.version for file in list_images(plan.root)}
    outdated: defaultdict[str, set[str]] = defaultdict(set)
    for name, found in repeated.items():
        kept = next((key for scored, key in found if scored == now.get(name)), found[0][1])
        for _, key in found:
            if key != kept:
                outdated[key].add(name)
    for key, names in outdated.items():
        try:
            parts.leave_out(key, names)
        except FileNotFoundError:
            logger.info("Another run has just replaced %s of %s", key, parts.location)
    return sum(map(len, outdated.values()))


def summarize(plan: ScoringPlan, statuses: Mapping[str, int]) -> dict[str, str]:
    """Return in words what a run has done, by what it is.

    Args:
        plan: What there was to do.
        statuses: How many images this run gave which status.
    """
    scored = sum(statuses.values())
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(statuses.items()))
    by_others = plan.num_new - scored
    return {
        "listed": f"{plan.num_listed:,} images in {plan.root}",
        "scored": f"{scored:,} new or changed" + (f" ({reasons})" if reasons else ""),
        **({"by other runs": f"{by_others:,} meanwhile"} if by_others else {}),
        "scores": ScoreParts(plan.out, plan.digest).location,
    }


class ListedReader:
    """Reads listed images of a root by the names that their rows have.

    Args:
        root: Folder or URL.
        files: Images, as listed.

    Attributes:
        names: Their names, in the same order.
        num_workers: Threads that read and decode best.
    """

    def __init__(self, root: str, files: Iterable[ListedFile]) -> None:
        self._root = Root(root)
        self._files = {image_name(root, file.uri): file for file in files}
        self.names = list(self._files)
        self.num_workers = best_num_workers(self._root)

    def read(self, name: str, max_megapixels: float) -> bytes:
        """Return the bytes of an image in the version that was listed, tried twice."""
        file = self._files[name]
        try:
            return read_listed(self._root, file, max_megapixels)
        except ImageError:  # a transfer may cut what the store holds whole
            return read_listed(self._root, file, max_megapixels)


def list_images(place: str) -> list[ListedFile]:
    """Return the images of a folder or URL, sorted, in one listing.

    Raises:
        DataError: There is none, or access is denied.
    """
    root = Root(place)
    # By name, for names that are not UTF-8 may look the same; none of them can be read.
    images = list({file.uri: file for file in root.files() if is_image(file.uri)}.values())
    if not images:
        oddities = "".join(f" {sentence}" for sentence in root.oddities.sentences(root.root))
        advice = archive_hint(place) or " Set data.root to the folder or URL that holds the images."
        raise DataError(
            f"There are no images in {root.root}: no file below it, at any depth, ends in "
            f"{', '.join(IMAGE_SUFFIXES)}, or has no ending and is DICOM.{oddities}{advice}"
        )
    return images


def _scored(parts: ScoreParts, root: str) -> tuple[defaultdict[str, set[str]], bool]:
    """Return the versions that were scored of each image, and whether one has several rows."""
    versions: defaultdict[str, set[str]] = defaultdict(set)
    num_rows = 0
    for record in parts.records().values():
        if record.root == root:
            num_rows += len(record.versions)
            for name, scored in record.versions.items():
                versions[name].add(scored)
    return versions, num_rows > len(versions)
