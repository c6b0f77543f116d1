"""What the process that starts a stage on a cluster does itself."""

import shutil
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd
import pytest

from cxrmodel.config import LatentsConfig, RuntimeConfig, VAEConfig
from cxrmodel.data.images.pixel_cache import PixelCache
from cxrmodel.progress import silent
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.training.vae.fit import fit_vae
from tasks.engine import stage
from tasks.engine.pixels import PixelSource
from tasks.engine.stage import PLANNER, StageClock, StageRun
from tasks.latents import encode_images

pytestmark = pytest.mark.integration


class WithoutPrefect:
    """Runs a stage's body in a draft of the store."""

    @contextmanager
    def stage_run(self, store):
        with store.write("latents", "0" * 16) as draft:
            work = store.scratch / "parts"
            yield StageRun(draft.directory, work, silent, draft, {}, StageClock(work))


def published(store: Store, stage: str, folder: Path) -> Artifact:
    with store.write(stage, "0" * 16) as draft:
        shutil.copytree(folder, draft.directory, dirs_exist_ok=True)
        return draft.commit({}, {})


def test_only_the_workers_decode_what_they_encode(cluster, prepared, tmp_path, monkeypatch):
    (tmp_path / "vae").mkdir()
    vae = VAEConfig(epochs=1, batch_size=8, latent_dim=4)
    pixels, folder = prepared.open_pixels(), tmp_path / "vae"
    fit_vae(vae, pixels, prepared.split, folder, checkpoints=tmp_path / "c", device="cpu")
    store = Store(str(tmp_path / "store"), tmp_path / "scratch")
    made = {
        name: published(store, name, prepared.folder / name)
        for name in ("index", "images", "split")
    }
    source = PixelSource(prepared.root, prepared.images, made["index"], made["images"])

    def refuse(*_):
        raise AssertionError("this process decodes")

    monkeypatch.setattr(PixelCache, "build", refuse)  # the workers are other processes
    monkeypatch.setattr(stage, "connected", lambda _: nullcontext())  # the fixture is already
    runtime = RuntimeConfig(device="cpu", ray_address="auto", ray_workers=1)
    token = PLANNER.set(WithoutPrefect())
    try:
        result = encode_images.fn(
            LatentsConfig(batch_size=8),
            published(store, "vae", folder),
            source,
            made["split"],
            store,
            runtime,
        )
    finally:
        PLANNER.reset(token)
    assert len(pd.read_parquet(store.directory(result) / "latents.parquet")) == 40
