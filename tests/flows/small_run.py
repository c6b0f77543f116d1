"""The pipeline's stages on a few small images, in one process and without Prefect.

What Prefect adds is a record of each finished stage: a file that names the published artifact, so
that the next run starts after it. It is written here like there, after the stage is published.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    LatentsConfig,
    PipelineConfig,
    VAEConfig,
)
from cxrmodel.data.images.pixels import Pixels, decode_images, open_pixels
from cxrmodel.data.index import build_index
from cxrmodel.data.source import scan_source
from cxrmodel.data.splits import split_images
from cxrmodel.evaluation.baselines import fit_baselines
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.storage.work_folder import own_work_folder
from cxrmodel.training.classifier.fit import fit_classifier
from cxrmodel.training.latents import extract_latents
from cxrmodel.training.vae.fit import fit_vae

CONFIG = PipelineConfig(
    images=ImagesConfig(size=64),
    vae=VAEConfig(epochs=2, batch_size=16, lr=1e-3, checkpoint_every_s=0.1),
    latents=LatentsConfig(batch_size=16),
    classifier=ClassifierConfig(epochs=2),
)
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.truncate", "os.rmdir"}


class SmallRun:
    """One run on a store and a scratch folder that others may share."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = str(root)
        self.store = Store(str(folder / "store"), folder / "scratch")
        self.records = folder / "store/_results"
        self.records.mkdir(parents=True, exist_ok=True)
        self.done: dict[str, Artifact] = {}

    def stages(self) -> dict[str, str]:
        """Run all stages and return the fingerprint of each one's artifact."""
        scratch, folder = self.store.scratch, self.folder
        source = scan_source(DataConfig(root=self.root), scratch)
        self._stage("index", lambda out, _: build_index(CONFIG.data, source, out))
        self._stage("images", self._decode)
        images = ("index", "images")
        self._stage("split", lambda out, _: split_images(CONFIG.split, *map(folder, images), out))
        self._stage("vae", self._train)
        self._stage("latents", self._encode)
        self._stage("classifier", self._classify)
        self._stage("baselines", self._fit_baselines)
        return {name: artifact.fingerprint for name, artifact in self.done.items()}

    def folder(self, stage: str) -> Path:
        return self.store.directory(self.done[stage])

    def pixels(self) -> Pixels:
        index, images = self.folder("index"), self.folder("images")
        return open_pixels(
            CONFIG.images, self.root, index, images, scratch=self.store.scratch, num_workers=2
        )

    def _stage(self, name: str, make: Callable[[Path, Path], dict]) -> None:
        inputs = [self.root, *(artifact.fingerprint for artifact in self.done.values())]
        key = hashlib.sha256(json.dumps([name, inputs]).encode()).hexdigest()
        record = self.records / f"{name}-{key}"
        found = self._recorded(record)
        if found is None or self.store.problems(found):
            parent = self.store.scratch / "work"
            with (
                self.store.write(name, key) as draft,
                own_work_folder(parent, f"{name}-{key}") as work,
            ):
                found = draft.commit(make(draft.directory, work), {})
                shutil.rmtree(work, ignore_errors=True)
            record.write_text(found.model_dump_json())
        self.done[name] = found

    def _recorded(self, record: Path) -> Artifact | None:
        try:
            return Artifact.model_validate_json(record.read_text())
        except (FileNotFoundError, ValueError):  # half a record, as of a killed run, is none
            return None

    def _decode(self, out: Path, _: Path) -> dict:
        index, scratch = self.folder("index"), self.store.scratch
        return decode_images(CONFIG.images, self.root, index, out, scratch=scratch, num_workers=2)

    def _train(self, out: Path, work: Path) -> dict:
        split = self.folder("split")
        return fit_vae(CONFIG.vae, self.pixels(), split, out, checkpoints=work, device="cpu")

    def _encode(self, out: Path, work: Path) -> dict:
        vae, split = self.folder("vae"), self.folder("split")
        return extract_latents(
            CONFIG.latents, vae, self.pixels(), split, out, parts=work, device="cpu"
        )

    def _classify(self, out: Path, _: Path) -> dict:
        latents, index = self.folder("latents"), self.folder("index")
        return fit_classifier(CONFIG.classifier, latents, index, out, device="cpu")

    def _fit_baselines(self, out: Path, _: Path) -> dict:
        return fit_baselines(self.pixels(), self.folder("split"), self.folder("index"), out)


class FileOperations:
    """Counts the operations on files below a folder, and kills the process at one of them."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.count, self._folder, self._kill_at = 0, str(folder), kill_at

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in FILE_EVENTS and str(arguments[0]).startswith(self._folder):
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def run_stages(root: Path, folder: Path, answer: Path, kill_at: int = 0) -> None:
    """Run all stages in a process of its own, and write what became of it to a file.

    Args:
        root: Of the data set.
        folder: Of the store and the scratch folder.
        answer: File for the fingerprints of the artifacts and the number of file operations.
        kill_at: File operation to die at, instantly; 0: none.
    """
    torch.set_num_threads(1)
    operations = FileOperations(folder, kill_at)
    sys.addaudithook(operations)
    fingerprints = SmallRun(root, folder).stages()
    answer.write_text(json.dumps({"made": fingerprints, "operations": operations.count}))
