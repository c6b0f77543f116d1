"""Published results: references, atomic publication and verification, on any fsspec file system.

Layout: `<root>/<stage>/<key>/` holds an artifact's files and, written last, its `manifest.json`;
a folder without one does not exist. The key ends in a digest of the content, so two runs that
publish at once write either the same bytes or different folders, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict

from cxrmodel.errors import DamagedArtifactError, StoreError
from cxrmodel.storage.disk import explain_full_disk
from cxrmodel.storage.layout import MANIFEST_FILE
from cxrmodel.storage.remote import RemoteFiles, RemoteFolder

DIGEST_CHARS = 16


class FileRecord(BaseModel):
    """Size and checksum of one published file."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str

    def describes(self, path: Path) -> bool:
        """Tell whether a local file is the recorded one."""
        return record_file(path) == self


class Artifact(BaseModel):
    """Reference to the published files of one stage; what tasks pass to each other.

    Attributes:
        stage: The stage that made it.
        key: Folder name below the stage's; ends in a digest of the content.
        files: Record of each file, by name.
        summary: A few scalars worth showing.
        seconds: Wall time of the stage that made it.
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    files: dict[str, FileRecord]
    summary: dict[str, Any] = {}
    seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Digest of the names and contents of the files, and of nothing else."""
        return _digest({name: record.sha256 for name, record in self.files.items()})

    def only(self, *names: str) -> Self:
        """Return a reference to some of the files, so that others do not count as input."""
        return self.model_copy(update={"files": {name: self.files[name] for name in names}})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def record_file(path: Path) -> FileRecord:
    """Return the size and sha256 of a local file."""
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRecord(bytes=path.stat().st_size, sha256=sha256)


class Draft:
    """Files of a stage in progress, in a local folder that nobody else sees.

    Attributes:
        directory: Where to write them.
        artifact: The published reference, once `commit` has returned.
    """

    def __init__(self, store: Store, stage: str, key: str, directory: Path) -> None:
        self.directory = directory
        self.artifact: Artifact | None = None
        self._store, self._stage, self._key = store, stage, key

    def commit(
        self, summary: dict[str, Any], provenance: dict[str, Any], seconds: float = 0.0
    ) -> Artifact:
        """Publish every file of the folder and return its reference."""
        files = {
            path.relative_to(self.directory).as_posix(): record_file(path)
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }
        content = _digest({name: record.sha256 for name, record in files.items()})
        self.artifact = Artifact(
            stage=self._stage,
            key=f"{self._key[:DIGEST_CHARS]}-{content[:DIGEST_CHARS]}",
            files=files,
            summary=summary,
            seconds=round(seconds, 3),
        )
        self._store.publish(self.artifact, self.directory, provenance)
        return self.artifact


class Store:
    """The artifacts below one root.

    Args:
        root: Folder or fsspec URL; made when first written to.
        scratch: Node-local folder for drafts and for copies of remote files.

    Raises:
        StoreError: No file system for such a URL is known or installed.
    """

    def __init__(self, root: str, scratch: str | Path) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(root)
        except (ImportError, ValueError, TypeError, IsADirectoryError) as error:
            raise StoreError(
                f"store.root = {root} cannot be opened: {error}. Give a folder, or the URL of a "
                "protocol whose package is installed, as s3://bucket/prefix."
            ) from error
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._remote = RemoteFiles(self._fs)
        self.root = root
        self.scratch = Path(scratch).absolute()

    def uri(self, artifact: Artifact, name: str = "") -> str:
        """Return the path or URL of an artifact, or of one of its files."""
        where = f"{self._root}/{artifact.stage}/{artifact.key}/{name}".rstrip("/")
        return where if self.is_local else str(self._fs.unstrip_protocol(where))

    def remote_folder(self, name: str) -> RemoteFolder | None:
        """Return a folder beside the artifacts, or None where the store is a local one."""
        return None if self.is_local else RemoteFolder(self._fs, f"{self._root}/{name}")

    @contextmanager
    def write(self, stage: str, key: str) -> Iterator[Draft]:
        """Give a folder to write a stage's files in; it vanishes unless committed.

        Raises:
            DiskFullError: The disk of scratch or of the store is full.
        """
        directory = self.scratch / "drafts" / f"{stage}-{uuid.uuid4().hex}"
        local = {"store.root": Path(self._root)} if self.is_local else {}
        with explain_full_disk(**{"store.scratch": self.scratch}, **local):
            directory.mkdir(parents=True)
            try:
                yield Draft(self, stage, key, directory)
            finally:
                shutil.rmtree(directory)

    def publish(self, artifact: Artifact, directory: Path, provenance: dict[str, Any]) -> None:
        """Copy a folder's files to the store, then the manifest that makes them exist."""
        if not self.problems(artifact):
            return  # another run has published the same content
        target = self._path(artifact)
        for name in artifact.files:
            self._put(directory / name, f"{target}/{name}")
        manifest = {**artifact.model_dump(), "provenance": provenance}
        local = directory.with_suffix(".manifest")
        try:
            local.write_text(json.dumps(manifest, indent=1, sort_keys=True))
            self._put(local, f"{target}/{MANIFEST_FILE}")
        finally:
            local.unlink(missing_ok=True)

    def problems(self, artifact: Artifact) -> list[str]:
        """Name the files that are missing or of another size than recorded, the manifest too."""
        try:
            found = self._remote.find(self._path(artifact))
        except FileNotFoundError:
            found = {}
        sizes = {
            name.rsplit(f"{artifact.key}/", 1)[-1]: info["size"] for name, info in found.items()
        }
        expected = {name: record.bytes for name, record in artifact.files.items()}
        problems = [
            f"{self.uri(artifact, name)} is missing"
            if name not in sizes
            else f"{self.uri(artifact, name)} has {sizes[name]} bytes instead of {size}"
            for name, size in expected.items()
            if sizes.get(name) != size
        ]
        if MANIFEST_FILE not in sizes:
            problems.append(f"{self.uri(artifact, MANIFEST_FILE)} is missing")
        return problems

    def directory(self, artifact: Artifact) -> Path:
        """Return a local folder with the artifact's files, fetched where the store is remote.

        Raises:
            DamagedArtifactError: A file is missing or differs from its record.
            DiskFullError: The disk of scratch is full.
        """
        with explain_full_disk(**{"store.scratch": self.scratch}):
            local = Path(self._path(artifact)) if self.is_local else self._fetched(artifact)
        for name, record in artifact.files.items():
            path = local / name
            size = path.stat().st_size if path.is_file() else None
            if size != record.bytes:
                raise DamagedArtifactError(
                    f"{path} has {size if size is not None else 'no'} bytes instead of "
                    f"{record.bytes}. Delete {self.uri(artifact)} and run again to rebuild it."
                )
        return local

    def _path(self, artifact: Artifact) -> str:
        return f"{self._root}/{artifact.stage}/{artifact.key}"

    def _put(self, local: Path, target: str) -> None:
        if not self.is_local:  # an object appears whole or not at all
            self._remote.put(local, target)
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = f"{target}.{uuid.uuid4().hex}.partial"
        try:
            shutil.copyfile(local, partial)
            Path(partial).replace(target)
        finally:
            Path(partial).unlink(missing_ok=True)

    def _fetched(self, artifact: Artifact) -> Path:
        local = self.scratch / "artifacts" / artifact.stage / artifact.key
        local.mkdir(parents=True, exist_ok=True)
        os.utime(local)  # it is in use: no cleaner may take it for an old one
        for name, record in artifact.files.items():
            path = local / name
            if path.is_file() and path.stat().st_size == record.bytes:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
            try:
                self._remote.fetch(f"{self._path(artifact)}/{name}", partial, record.describes)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return local
