"""README.md of a bundle: a Hugging Face header, how to use it, and the run's model card."""

from __future__ import annotations

from typing import Any

import yaml

COMPUTE = "\n## Compute\n"
"""Last section of the model card: how long it took, which is no property of a model."""


def bundle_card(description: dict[str, Any], metrics: dict[str, Any], model_card: str) -> str:
    """Return the text.

    Args:
        description: Content of `model.json`.
        metrics: Content of `metrics.json`.
        model_card: `MODEL_CARD.md` of the report.
    """
    title = description["data"]["title"]
    header = {
        "library_name": "cxrmodel",
        "license": "other",
        "license_name": "research-only",
        "pipeline_tag": "image-classification",
        "tags": ["chest-x-ray", "variational-autoencoder", "multi-label-classification"],
        "model-index": [{"name": "cxrmodel", "results": [_result(title, metrics)]}],
    }
    images = description["images"]
    size = images["size"]
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip()}
---

**Research only. Not for clinical use, not a medical device.**

Trained on {title}. Takes a frontal chest X-ray as PNG, JPEG or DICOM, made {size} x {size} pixels
(fit `{images["fit"]}`); gives {_given(description)}, and how unusual the image is.

```python
import cxrmodel

model = cxrmodel.load("path/of/this/folder")
table = model.predict(["image.png"])
```

```sh
cxrmodel predict path/of/this/folder images/ --out scores.parquet
```

{model_card.partition(COMPUTE)[0]}"""


def _given(description: dict[str, Any]) -> str:
    latents = f"{description['architecture']['vae']['latent_dim']} latent numbers"
    num_labels = len(description["labels"])
    return f"a probability for each of {num_labels} findings, {latents}" if num_labels else latents


def _result(title: str, metrics: dict[str, Any]) -> dict[str, Any]:
    classifier = metrics["classifier"]
    names = {"macro_auroc": "Macro AUROC", "macro_f1": "Macro F1"}
    return {
        "task": {"type": "image-classification", "name": "Findings of a chest X-ray"},
        "dataset": {"name": title, "type": metrics["data"]["dataset"]},
        "metrics": [
            {
                "type": key,
                "name": f"{name} on test",
                "value": classifier[key],
                "interval_95": classifier["intervals"].get(key),
            }
            for key, name in names.items()
            if classifier[key] is not None
        ],
    }
