"""`python -m deployments gc`: remove what no cache record of a store refers to.

An artifact is kept as long as the key of its folder occurs in a record, or it is a bundle that an
alias names, or would name after a rollback. Records are read as JSON;
nothing in them is ever run. A record that cannot be read stops everything before the first removal.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import fsspec
from pydantic import ValidationError

from cxrmodel.config import (
    CHECKPOINTS_FOLDER,
    RECORDS_FOLDER,
    SCRATCH_FOLDERS,
    PipelineConfig,
    Stage,
)
from cxrmodel.settings import explain
from cxrmodel.storage.aliases import Aliases
from cxrmodel.storage.layout import MANIFEST_FILE
from cxrmodel.storage.store import DIGEST_CHARS
from flows.command_line import Parser

KEY = re.compile(rf"[0-9a-f]{{{DIGEST_CHARS}}}-[0-9a-f]{{{DIGEST_CHARS}}}")
RECORD = re.compile(
    rf"({'|'.join(get_args(Stage))})-[0-9a-f]{{64}}"
)  # as tasks.engine.stage names it
PARTIAL = ".partial"
COPIES = "artifacts"  # of a remote store's files, a folder per stage
MAX_DAYS = 36_500
MIB = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A folder or file that belongs together.

    Attributes:
        path: Where it is, without the protocol.
        key: Key of the artifact, where it is one.
        bytes: Size of all its files.
        modified: Time of its newest file.
    """

    path: str
    key: str | None
    bytes: int
    modified: datetime

    def __str__(self) -> str:
        age = datetime.now(UTC) - self.modified
        return f"{self.path}  {self.bytes / MIB:.1f} MiB, {age.days} days old"


class Garbage:
    """What may be removed from a store.

    Args:
        root: Folder or URL of the store.
        older_than: Nothing younger is ever removed: a run may be about to record it.
    """

    def __init__(self, root: str, older_than: timedelta) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(root)
        self._aliases = Aliases(root)
        self._cutoff = datetime.now(UTC) - older_than

    def find(self, forgotten: Iterable[Entry] = ()) -> list[Entry]:
        """Return the old artifacts without a record, and the remains of broken uploads and runs.

        Raises:
            ValueError: The store has no records, or one that cannot be read.
        """
        self._fs.invalidate_cache()
        entries = self._entries()  # listed before the records are read: what is new is not in it
        live = self._live_keys({entry.path for entry in forgotten})
        return [
            entry for entry in entries if entry.modified < self._cutoff and entry.key not in live
        ]

    def old_records(self, older_than: timedelta) -> list[Entry]:
        """Return the records written before then."""
        cutoff = datetime.now(UTC) - older_than
        return [entry for entry in self._records() if entry.modified < cutoff]

    def remove(self, entry: Entry) -> None:
        """Remove an entry, first the manifest that makes an artifact exist."""
        manifest = f"{entry.path}/{MANIFEST_FILE}"
        if entry.key is not None and self._fs.exists(manifest):
            self._fs.rm_file(manifest)
        self._fs.rm(entry.path, recursive=True)

    def _entries(self) -> list[Entry]:
        files: dict[tuple[str, str | None], list[dict[str, Any]]] = defaultdict(list)
        for path, info in self._fs.find(self._root, detail=True).items():
            stage, _, rest = path.removeprefix(f"{self._root}/").partition("/")
            key = rest.partition("/")[0]
            if (
                stage == CHECKPOINTS_FOLDER
            ):  # its training has not been published: it would have gone
                files[f"{self._root}/{stage}/{key}", None].append(info)
            elif stage not in get_args(Stage) or not KEY.fullmatch(key):
                continue
            elif path.endswith(PARTIAL):
                files[path, None].append(info)
            else:
                files[f"{self._root}/{stage}/{key}", key].append(info)
        return [_entry(path, key, infos) for (path, key), infos in files.items()]

    def _records(self) -> list[Entry]:
        found = self._fs.find(f"{self._root}/{RECORDS_FOLDER}", detail=True)
        return [
            _entry(path, None, [info])
            for path, info in found.items()
            if RECORD.fullmatch(path.rpartition("/")[2])
        ]

    def _live_keys(self, forgotten: set[str]) -> set[str]:
        records = self._records()
        if not records and not forgotten:
            raise ValueError(
                f"--store.root {self._root}: there is no cache record in {RECORDS_FOLDER}/, so "
                "nothing tells what is in use. Nothing is removed; is this the root of a store?"
            )
        paths = [entry.path for entry in records if entry.path not in forgotten]
        contents = self._fs.cat(paths, on_error="return") if paths else {}
        recorded = {
            key
            for path, content in contents.items()
            if not isinstance(content, FileNotFoundError)  # removed since it was listed
            for key in _keys_in(path, content)
        }
        return recorded | {bundle.rpartition("/")[2] for bundle in self._aliases.in_use()}


def _entry(path: str, key: str | None, infos: list[dict[str, Any]]) -> Entry:
    size = sum(info["size"] for info in infos)
    return Entry(path, key, size, max(_modified(info) for info in infos))


def _modified(info: dict[str, Any]) -> datetime:
    when = info["LastModified"] if "LastModified" in info else info["mtime"]
    if isinstance(when, datetime):
        return when.astimezone(UTC)
    return datetime.fromtimestamp(when, UTC)


def _keys_in(path: str, content: bytes | Exception) -> list[str]:
    if isinstance(content, Exception):
        raise ValueError(f"cannot read the cache record {path}: {content}") from content
    try:
        record = json.loads(content)
        if record["metadata"]["serializer"]["type"] == "json":
            return KEY.findall(record["result"] or "")
    except (ValueError, KeyError, TypeError):
        pass  # the same message for whatever else it may be
    raise ValueError(
        f"{path} is not a cache record of this pipeline, so nothing tells what it refers to. "
        "Nothing is removed; move that file away or delete it"
    )


def old_scratch(scratch: Path, older_than: timedelta) -> list[Entry]:
    """Return what is old in scratch: the remains of killed runs, and what no run has opened lately.

    Decoded images, listings and copies of a remote store's files only cost the time to make or
    fetch them again; opening one makes it count as new.

    Raises:
        ValueError: There is no such folder.
    """
    if not scratch.is_dir():
        raise ValueError(f"--store.scratch {scratch}: there is no such folder.")
    cutoff = datetime.now(UTC) - older_than
    parents = [scratch / name for name in SCRATCH_FOLDERS if name != COPIES]
    parents += _folders_in(scratch / COPIES)
    entries = [_scratch_entry(path) for parent in parents for path in _paths_in(parent)]
    return [entry for entry in entries if entry and entry.modified < cutoff]


def _paths_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in _paths_in(folder) if path.is_dir()]


def _scratch_entry(path: Path) -> Entry | None:
    """Return what is there, or None where a run has just removed it."""
    infos = []
    for part in (path, *path.rglob("*")):
        try:
            status = part.lstat()  # a link's own, wherever it may lead
        except FileNotFoundError:
            continue
        infos.append({"size": status.st_size, "mtime": status.st_mtime})
    return _entry(str(path), None, infos) if infos else None


def _remove_scratch(entry: Entry) -> None:
    path = Path(entry.path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _days(text: str) -> timedelta:
    try:
        days = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days") from None
    if not 1 <= days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(
            f"at least 1 day, so that no running flow loses its files, and at most {MAX_DAYS:,}"
        )
    return timedelta(days=days)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m deployments gc",
        description="Remove artifacts that no cache record refers to, and what killed runs left.",
        allow_abbrev=False,
    )
    parser.add_argument("--store.root", dest="root", help="folder or URL; needed")
    parser.add_argument(
        "--store.scratch", dest="scratch", help="clean this node's scratch folder too"
    )
    parser.add_argument(
        "--older-than-days", type=_days, default=_days("30"), help="keep younger things; 30"
    )
    parser.add_argument(
        "--forget-after-days",
        type=_days,
        help="first drop cache records older than this: their stages would run again",
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed")
    return parser


def command(arguments: list[str]) -> Iterator[str]:
    """Collect as the arguments say, and yield a line for each thing removed.

    Raises:
        ValueError: An argument is wrong, or the store has no records, or one that cannot be read.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    parser.refuse(unknown)
    if options.root is None:
        parser.error("--store.root is needed: the folder or URL of the store")
    given = {"root": options.root, **({"scratch": options.scratch} if options.scratch else {})}
    try:
        store = PipelineConfig.model_validate({"store": given}).store
    except ValidationError as error:
        parser.error(explain(error, PipelineConfig))
    folder = Path(store.scratch) if options.scratch else None
    yield from _collect(store.root, folder, options)


def _collect(root: str, scratch: Path | None, options: argparse.Namespace) -> Iterator[str]:
    garbage = Garbage(root, options.older_than_days)
    after = options.forget_after_days
    records = garbage.old_records(after) if after else []
    unused = garbage.find(records)
    left = old_scratch(scratch, options.older_than_days) if scratch else []
    if not options.dry_run:
        for entry in records:
            garbage.remove(entry)
        still = {entry.path for entry in garbage.find(records)} if unused else set()
        unused = [entry for entry in unused if entry.path in still]  # not recorded in the meantime
    verb = "would remove" if options.dry_run else "removed"
    for entry in [*records, *unused, *left]:
        if not options.dry_run and entry not in records:
            remove = _remove_scratch if entry in left else garbage.remove
            remove(entry)
        yield f"{verb} {entry}"
    total = sum(entry.bytes for entry in [*records, *unused, *left])
    yield f"{verb} {total / MIB:.1f} MiB in all"
