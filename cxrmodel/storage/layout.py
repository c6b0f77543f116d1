"""Names of the files that each stage publishes, and the one status of an image that can be used."""

MANIFEST_FILE = "manifest.json"
"""Of every artifact; written last, so that a folder without it does not exist."""

INDEX_FILE = "index.parquet"
LISTING_FILE = "listing.parquet"
BOXES_FILE = "boxes.parquet"
NOTES_FILE = "notes.json"
EXCLUDED_FILE = "excluded.parquet"

IMAGES_FILE = "images.parquet"
OK = "ok"
"""In the column `status` of `IMAGES_FILE`."""

SPLIT_FILE = "split.parquet"
LEAKAGE_FILE = "leakage.json"

CONFIG_FILE = "config.json"
HISTORY_FILE = "history.parquet"
VAE_WEIGHTS_FILE = "vae.safetensors"
VAE_BEST_WEIGHTS_FILE = "vae_best.safetensors"
VAE_LAST_WEIGHTS_FILE = "vae_last.safetensors"
LATENTS_FILE = "latents.parquet"
CLASSIFIER_WEIGHTS_FILE = "classifier.safetensors"
PREDICTIONS_FILE = "predictions.parquet"

HASHES_FILE = "hashes.parquet"
RECONSTRUCTION_FILE = "reconstruction.json"
PCA_LATENTS_FOLDER = "pca_latents"
"""Holds a `LATENTS_FILE` of principal components."""

REPORT_FILE = "report.html"
METRICS_FILE = "metrics.json"
MODEL_CARD_FILE = "MODEL_CARD.md"
DATASHEET_FILE = "DATASHEET.md"
TEST_PREDICTIONS_FILE = "test_predictions.parquet"
VAL_PREDICTIONS_FILE = "val_predictions.parquet"
VIEWER_FILE = "viewer.parquet"
"""The images of the report's viewer, for a later comparison."""
FIGURES_FOLDER = "figures"

SWEEP_FILE = "sweep.html"
SWEEP_NUMBERS_FILE = "sweep.json"
