"""Settings of a sweep: several settings of a training, each with several seeds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from cxrmodel.config import MAX_SEED, PipelineConfig
from cxrmodel.settings import Section, problems_of, setting_names

ChooseBy = Literal["macro_auroc", "macro_average_precision", "l1"]

COMPARED = ("images", "vae", "latents", "classifier")
"""Sections that a setting may change: in the others all settings of a sweep are the same, so that
they are judged by the same images."""

SEEDED = ("vae", "classifier")
"""Sections whose `seed` is that of the sweep."""

MAX_NAME_CHARS = 60
MAX_SEEDS = 100


class SweepRun(NamedTuple):
    """One training of a sweep."""

    setting: str
    seed: int
    config: PipelineConfig


class SweepConfig(Section):
    """Train several settings with several seeds each, and choose one on validation."""

    name: str = "sweep"
    """Name of the sweep: its page goes to the folder `_sweeps/<name>` of the store."""

    base: PipelineConfig = PipelineConfig()
    """What all settings have in common; `vae.seed` and `classifier.seed` are those of the sweep."""

    settings: dict[str, dict[str, Any]] = Field(min_length=1)
    """What each setting changes of it, by its name: sections of `images`, `vae`, `latents` and
    `classifier` with their settings. The others are compared with the first one."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Each setting is trained once with each of them; a number N stands for 0 to N - 1."""

    choose_by: ChooseBy = "macro_auroc"
    """Score on validation by which one of the settings is chosen, as a mean over the seeds: the
    highest macro AUROC or average precision, or the lowest reconstruction error."""

    @field_validator("name")
    @classmethod
    def _can_be_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name) or len(name) > MAX_NAME_CHARS or not name.strip("."):
            raise ValueError(
                "The sweep's folder is named after its file: give that a name of 1 to "
                f"{MAX_NAME_CHARS} letters, digits, `_`, `-` or `.`, not {name!r}."
            )
        return name

    @field_validator("seeds", mode="before")
    @classmethod
    def _as_many_seeds(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return value
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"Give a number N for the seeds 0 to N - 1, or a list, not {value!r}.")
        return tuple(range(min(value, MAX_SEEDS + 1)))

    @field_validator("seeds")
    @classmethod
    def _some_and_each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds:
            raise ValueError("It has no seed. Give a number of 1 or more, or a list of seeds.")
        if len(seeds) > MAX_SEEDS:
            raise ValueError(f"A sweep has up to {MAX_SEEDS} seeds.")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"A seed is there twice in {list(seeds)}. Keep one of them.")
        if not all(0 <= seed <= MAX_SEED for seed in seeds):
            raise ValueError(f"A seed is from 0 to {MAX_SEED}.")
        return seeds

    @model_validator(mode="after")
    def _settings_can_be_compared(self) -> Self:
        names: dict[str, str] = {}
        for name, change in self.settings.items():
            check_change(name, change, self.choose_by)
            try:
                made = changed(self.base, change)
            except ValidationError as error:
                problems = problems_of(error, setting_names(PipelineConfig))
                told = "; ".join(f"{problem.name}: {problem.text}" for problem in problems)
                raise ValueError(f"The setting {name!r}: {told}") from error
            same = names.setdefault(made.fingerprint(), name)
            if same != name:
                raise ValueError(f"The settings {same!r} and {name!r} are the same. Keep one.")
        return self

    def runs(self) -> Iterator[SweepRun]:
        """Return all trainings: each setting with the first seed, then with the next one."""
        for seed in self.seeds:
            for name, change in self.settings.items():
                yield SweepRun(name, seed, self._with_seed(change, seed))

    def _with_seed(self, change: dict[str, Any], seed: int) -> PipelineConfig:
        seeded = {name: {**change.get(name, {}), "seed": seed} for name in SEEDED}
        return changed(self.base, {**change, **seeded})


def changed(base: PipelineConfig, change: dict[str, Any]) -> PipelineConfig:
    """Return settings with other values in some sections.

    Raises:
        ValidationError: There is no such setting, or it has an impossible value.
    """
    sections = base.model_dump()
    merged = {
        name: {**sections[name], **values} if isinstance(values, dict) else values
        for name, values in change.items()
    }
    return PipelineConfig.model_validate({**sections, **merged})


def check_change(name: str, change: dict[str, Any], choose_by: str) -> None:
    """Refuse what would make a setting no fair rival of the others.

    Raises:
        ValueError: It has no name, names another section than those of `COMPARED`, or a seed, or
            changes the images by whose error it is to be chosen.
    """
    if not name.isprintable() or name.strip() != name or not 0 < len(name) <= MAX_NAME_CHARS:
        raise ValueError(
            f"A setting needs a name of 1 to {MAX_NAME_CHARS} characters that can be seen, without "
            f"spaces around it, not {name!r}."
        )
    for section, values in change.items():
        if section not in COMPARED:
            raise ValueError(
                f"The setting {name!r} changes {section}, and the settings of a sweep differ in "
                f"{', '.join(COMPARED)} alone, so that they are compared on the same images. Set "
                f"{section} in base."
            )
        if section in SEEDED and isinstance(values, dict) and "seed" in values:
            raise ValueError(
                f"The setting {name!r} sets {section}.seed, which `seeds` says. Leave it out."
            )
    if choose_by == "l1" and "images" in change:
        raise ValueError(
            f"The setting {name!r} changes the images, whose reconstruction errors cannot be "
            "compared then. Set choose_by to macro_auroc or macro_average_precision."
        )
