"""The notebook's settings on the same split, which every other run is held against."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cxrmodel.config import (
    ClassifierConfig,
    DataConfig,
    ImagesConfig,
    LatentsConfig,
    SplitConfig,
    VAEConfig,
)
from cxrmodel.settings import Section

NAME = "seed"
SETTINGS: Mapping[str, Section] = {
    "vae": VAEConfig(),
    "latents": LatentsConfig(),
    "classifier": ClassifierConfig(weights="last"),
}
"""What `configs/seed.yaml` says of the models; the split is that of the run."""

SAME = {"data": DataConfig(), "images": ImagesConfig(), "split": SplitConfig(method="rows")}
"""Sections in which the two runs agree, as `configs/seed.yaml` alone would set them."""

COMPARED, ABSENT, THIS_RUN = "compared", "absent", "this run"
SENTENCES = {
    COMPARED: "The store holds a run of the notebook's settings (configs/seed.yaml) on the same "
    "images and split: it is among the baselines.",
    THIS_RUN: "These are the notebook's settings, which other runs on this split are compared "
    "with.",
    ABSENT: "The store holds no run of the notebook's settings on this split, so that this run is "
    "not compared with them. To have them among the baselines, run `{command}` on the same store, "
    "and then this run again.",
}


def is_seed(config: Mapping[str, Any]) -> bool:
    """Say whether settings, by section and name, are the notebook's but for data and split."""
    return all(
        type(settings)(**config.get(section, {})).key_fields() == settings.key_fields()
        for section, settings in SETTINGS.items()
    )


def seed_command(config: Mapping[str, Any]) -> str:
    """Return the command that runs the notebook's settings on the data and split of a run."""
    flags = [
        f"--{section}.{name} {shlex.quote(str(value))}"
        for section, defaults in SAME.items()
        for name, value in config.get(section, {}).items()
        if value is not None and value != getattr(defaults, name, None)
    ]
    return " ".join(["python flows/main.py --config configs/seed.yaml", *flags])


def describe_seed_run(config: Mapping[str, Any], *, is_compared: bool) -> dict[str, str]:
    """Return the state of the comparison and a sentence that says it."""
    state = COMPARED if is_compared else THIS_RUN if is_seed(config) else ABSENT
    return {"state": state, "sentence": SENTENCES[state].format(command=seed_command(config))}
