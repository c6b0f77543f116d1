"""The notebook's settings are found under the keys that their stages would have."""

import pytest

from cxrmodel.config import ClassifierConfig, LatentsConfig, PipelineConfig, VAEConfig
from cxrmodel.store import Artifact, Store
from tasks.classifier import train_classifier
from tasks.latents import encode_images
from tasks.pixels import PixelSource
from tasks.plan import Pending
from tasks.records import open_records
from tasks.seed_run import find_seed_run
from tasks.vae import train_vae

SEED = {
    train_vae: VAEConfig(),
    encode_images: LatentsConfig(),
    train_classifier: ClassifierConfig(weights="last"),
}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), tmp_path / "scratch")


def publish(store: Store, stage: str, *names: str) -> Artifact:
    with store.write(stage, "0" * 16) as draft:
        for name in names:
            (draft.directory / name).write_text(f"{stage} {name}")
        return draft.commit({}, {})


@pytest.fixture
def inputs(store):
    index = publish(store, "index", "index.parquet")
    images = publish(store, "images", "images.parquet")
    pixels = PixelSource("/data", PipelineConfig().images, index, images)
    return {"pixels": pixels, "split": publish(store, "split", "split.parquet"), "index": index}


def record(store, task, artifact, **inputs):
    key = task.cache_policy.key(task.fn, {"config": SEED[task], **inputs})
    open_records(store.root).write(key=key, obj=artifact)


@pytest.fixture
def stored(store, inputs):
    """The three stages of a run of the seed, and their records."""
    pixels, split = inputs["pixels"], inputs["split"]
    vae = publish(store, "vae", "vae.safetensors", "config.json", "history.parquet")
    record(store, train_vae, vae, pixels=pixels, split=split)
    latents = publish(store, "latents", "latents.parquet")
    weights = vae.only("vae.safetensors", "config.json")
    record(store, encode_images, latents, vae=weights, pixels=pixels, split=split)
    classifier = publish(store, "classifier", "predictions.parquet", "classifier.safetensors")
    record(store, train_classifier, classifier, latents=latents, index=inputs["index"])
    return {"vae": vae, "latents": latents, "classifier": classifier}


def find(store, inputs, **settings):
    return find_seed_run(PipelineConfig(**settings), store=store, **inputs)


def test_a_stored_run_on_the_same_images_and_split_is_found(store, inputs, stored):
    assert find(store, inputs) == {
        "seed_latents": stored["latents"],
        "seed_classifier": stored["classifier"].only("predictions.parquet"),
    }


def test_a_run_on_another_split_is_not(store, inputs, stored):
    other = publish(store, "split", "split.parquet", "leakage.json")
    assert find(store, inputs | {"split": other}) == {}


def test_nothing_is_found_in_an_empty_store(store, inputs):
    assert find(store, inputs) == {}


@pytest.mark.parametrize("stage", ["vae", "latents", "classifier"])
def test_a_stage_whose_files_are_lost_is_not_found(store, inputs, stored, stage):
    next(store.directory(stored[stage]).glob("*.*")).unlink()
    assert find(store, inputs) == {}


def test_the_seed_itself_is_not_compared_with_itself(store, inputs, stored):
    assert find(store, inputs, classifier={"weights": "last"}) == {}


def test_a_plan_whose_split_is_not_known_finds_nothing(store, inputs, stored):
    pending = Pending(stage="split", key="", files={})
    assert find(store, inputs | {"split": pending}) == {}


class StoreOutOfReach(Store):
    """A store whose server has gone after the first stages."""

    def problems(self, artifact: Artifact) -> list[str]:
        raise TimeoutError(f"{artifact.stage} cannot be looked at")


def test_a_store_out_of_reach_costs_the_comparison_only(store, inputs, stored, caplog):
    gone = StoreOutOfReach(store.root, store.scratch)
    assert find(gone, inputs) == {}
    assert "is not looked for: TimeoutError: vae cannot be looked at" in caplog.text
