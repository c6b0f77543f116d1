"""The training pipeline: `python flows/main.py --help` shows every setting."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from prefect import flow

from cxrmodel.config import PipelineConfig, Stage
from cxrmodel.data.source import Source
from cxrmodel.data.split_file import SplitTable
from cxrmodel.inference.promotion import warn_of_moving_parts
from cxrmodel.inference.use_config import ImageRoot, PromoteConfig
from cxrmodel.storage.layout import (
    BOXES_FILE,
    CLASSIFIER_WEIGHTS_FILE,
    CONFIG_FILE,
    EXCLUDED_FILE,
    HASHES_FILE,
    IMAGES_FILE,
    INDEX_FILE,
    LATENTS_FILE,
    LISTING_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    NOTES_FILE,
    PCA_LATENTS_FOLDER,
    PREDICTIONS_FILE,
    SPLIT_FILE,
    TEST_PREDICTIONS_FILE,
    VAE_WEIGHTS_FILE,
)
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.tracking import check_tracking
from cxrmodel.training.vae.objective import make_objective
from flows import command_line
from flows.promote import promote_bundle
from tasks.baselines import fit_pca_baseline
from tasks.bundle import bundle_model
from tasks.classifier import train_classifier
from tasks.engine.pixels import PixelSource
from tasks.engine.progress import show_library_logs
from tasks.images import decode_listed_images
from tasks.index import index_images
from tasks.latents import encode_images
from tasks.pca_network import train_pca_network
from tasks.report import report_run
from tasks.results import show_results
from tasks.source import find_source, find_split_table
from tasks.split import split_patients
from tasks.tracking import track_training
from tasks.vae import train_vae


@flow(name="cxrmodel", flow_run_name=command_line.flow_run_name, persist_result=False)
def train_pipeline(
    config: PipelineConfig = PipelineConfig(),  # noqa: B008 - it is frozen
    refresh: tuple[Stage, ...] = (),
    promote: bool = False,
) -> tuple[Artifact, Artifact]:
    """Learn from a folder or bucket of chest X-rays and report honestly.

    Args:
        config: Every setting; each stage is cached by its own section and its inputs' content.
        refresh: Stages to run again even where their result is cached.
        promote: Then give the alias `champion` to the bundle if it is better than the present one;
            where no test image is left to compare by, it is not, and the training still succeeds.

    Returns:
        References of the report and of the bundle, which is the model to use.
    """
    make_objective(config.vae)  # a misspelt name is told now, not once the images are decoded
    check_tracking(config.tracking)
    show_library_logs()
    if promote:
        warn_of_moving_parts(config.split)
    store = Store(config.store.root, config.store.scratch)
    source = find_source(config.data, store, config.runtime)
    table = find_split_table(config.split, config.data, store) if config.split.file else None
    stages = run_stages(config, source, table, store)
    report, bundle = stages["report"], stages["bundle"]
    excluding = [artifact for artifact in stages.values() if EXCLUDED_FILE in artifact.files]
    show_results(report, bundle, excluding, store)
    if config.tracking.mlflow_uri:
        track_training(config, report, bundle, store)
    if promote:
        promote_bundle(
            PromoteConfig(
                challenger=store.uri(bundle),
                test=store.uri(report, TEST_PREDICTIONS_FILE),
                data=ImageRoot(root=source.root),
                device=config.runtime.device_here,
                store=config.store,
                tracking=config.tracking,
            ),
            must_judge=False,
        )
    return report, bundle


def run_stages(
    config: PipelineConfig, source: Source, table: SplitTable | None, store: Store
) -> dict[str, Artifact]:
    """Run every stage on a data set, from its index to the bundle.

    Args:
        config: Every setting.
        source: What the data set's root holds.
        table: What `split.file` says, where it is given.
        store: Where results are kept.

    Returns:
        Reference of each stage's result, by name.
    """
    runtime = config.runtime
    index = index_images(config.data, source, store)
    metadata = index.only(INDEX_FILE)
    listing = index.only(LISTING_FILE)

    images = decode_listed_images(config.images, source.root, listing, store, runtime)
    pixels = PixelSource(source.root, config.images, listing, images)

    split = split_patients(config.split, metadata, images.only(IMAGES_FILE), store, table)
    parts = split.only(SPLIT_FILE)

    vae = train_vae(config.vae, pixels, parts, store, runtime)
    weights = vae.only(VAE_WEIGHTS_FILE, CONFIG_FILE)
    latents = encode_images(config.latents, weights, pixels, parts, store, runtime)
    classifier = train_classifier(config.classifier, latents, metadata, store, runtime)
    baselines = fit_pca_baseline(pixels, parts, metadata, store, runtime)
    components = baselines.only(f"{PCA_LATENTS_FOLDER}/{LATENTS_FILE}")
    pca_network = train_pca_network(config.classifier, components, metadata, store, runtime)

    stages = {
        "index": index.only(INDEX_FILE, EXCLUDED_FILE, BOXES_FILE, NOTES_FILE),
        "images": images,
        "split": split,
        "vae": vae,
        "latents": latents,
        "classifier": classifier,
        "baselines": baselines,
        "pca_network": pca_network,
    }
    report = report_run(config, stages, pixels, store, runtime)

    parts_of_bundle = {
        "index": metadata,
        "images": images.only(IMAGES_FILE),
        "vae": weights,
        "latents": latents,
        "classifier": classifier.only(CLASSIFIER_WEIGHTS_FILE, CONFIG_FILE, PREDICTIONS_FILE),
        "baselines": baselines.only(HASHES_FILE),
        "report": report.only(METRICS_FILE, MODEL_CARD_FILE),
    }
    bundle = bundle_model(config.images, parts_of_bundle, pixels, store, runtime)
    return stages | {"report": report, "bundle": bundle}


if __name__ == "__main__":
    command_line.run(train_pipeline, run_stages)
