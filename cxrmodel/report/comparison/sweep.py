"""Settings that were trained with several seeds each: which is best on validation, and how sure.

Per setting and score the mean over its seeds is what counts, and its spread over them is shown. The
difference between two settings is that of their means; both are resampled with the same validation
patients, so the interval is that of the difference for these seeds. Test is read for the chosen
setting alone: what chose has seen validation, and nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cxrmodel.evaluation.metrics import HEADLINE_METRICS, RANKED, resample_metrics
from cxrmodel.evaluation.patient_bootstrap import Estimate, PatientBootstrap
from cxrmodel.evaluation.predictions import Predictions
from cxrmodel.report.comparison.differences import equal_rows, reported_scores, resampled_scores
from cxrmodel.report.comparison.finished_run import (
    LABEL_PREFIX,
    FinishedRun,
    read_finished_run,
    read_predictions_of,
)
from cxrmodel.storage.layout import VAL_PREDICTIONS_FILE

L1 = "l1"
SCORES = (*(f"macro_{name}" for name in RANKED), L1)
OTHER_IMAGES = "its validation images, their patients or labels are not those of"


@dataclass(frozen=True)
class SweptRun:
    """A training of a sweep that has finished.

    Attributes:
        setting: Name of its setting.
        seed: Its seed.
        report: Path or URL of its report.
        bundle: Path or URL of its bundle.
    """

    setting: str
    seed: int
    report: str
    bundle: str


@dataclass(frozen=True)
class FailedRun:
    """A training of a sweep that has failed, and why."""

    setting: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Spread:
    """A score of one setting over its seeds.

    Attributes:
        by_seed: One per seed; None where it is undefined for one of them.
        mean: Their mean, with its 95 % interval by patients.
    """

    by_seed: tuple[float, ...] | None
    mean: Estimate

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds, None for a single one."""
        many = self.by_seed is not None and len(self.by_seed) > 1
        return statistics.stdev(self.by_seed) if self.by_seed and many else None

    @classmethod
    def of(cls, scores: Sequence[Estimate], bootstrap: PatientBootstrap) -> Spread:
        """Return the spread of a score that was estimated with each seed."""
        undefined = next((one for one in scores if one.value is None), None)
        if undefined is not None:
            return cls(None, undefined)
        values = tuple(one.value for one in scores if one.value is not None)
        resamples = np.mean([one.resamples for one in scores], axis=0)
        mean = bootstrap.estimate(Estimate(statistics.mean(values)), resamples)
        return cls(values, mean)


@dataclass(frozen=True)
class Setting:
    """A setting whose runs have all finished.

    Attributes:
        name: Its name.
        runs: One per seed.
        scores: On validation, by the names of `SCORES`.
        changes: Each score's mean less that of the reference; empty for the reference itself.
        wins: With how many of the seeds it is better than the reference, by the name of the score.
    """

    name: str
    runs: tuple[SweptRun, ...]
    scores: dict[str, Spread]
    changes: dict[str, Estimate]
    wins: dict[str, int]


@dataclass(frozen=True)
class SweepResults:
    """What a sweep has found.

    Attributes:
        choose_by: The score on validation that chooses.
        settings: Those whose runs have all finished; the first is the reference.
        failed: Runs that failed, or cannot be compared with the others.
        chosen: The setting with the best mean; None where there is none.
        lead: Its mean less that of the second best, None without one.
        second: Name of the second best.
        test: Test scores of the chosen setting.
        num_images: Validation images.
        num_patients: Their patients.
    """

    choose_by: str
    settings: list[Setting]
    failed: list[FailedRun]
    chosen: Setting | None
    lead: Estimate | None
    second: str
    test: dict[str, Spread]
    num_images: int
    num_patients: int


def compare_settings(
    finished: Sequence[SweptRun], failed: Sequence[FailedRun], choose_by: str, *, seed: int = 0
) -> SweepResults:
    """Compare settings on validation, choose one, and read the test scores of that one.

    Args:
        finished: All runs that finished, the reference's among the first of their seed.
        failed: The others; a setting with one of them takes no part.
        choose_by: One of `SCORES`.
        seed: Seed of the bootstrap.

    Raises:
        DataError: A report cannot be read.
    """
    failed = list(failed)
    by_setting: dict[str, list[SweptRun]] = {}
    for run in finished:
        by_setting.setdefault(run.setting, []).append(run)
    for one in failed:
        by_setting.pop(one.setting, None)
    tables = {name: _read_validation(runs) for name, runs in by_setting.items()}
    reference = next(iter(tables), "")
    for name in list(tables):
        if not _same_images(tables[reference], tables[name]):
            reason = f"{OTHER_IMAGES} {reference}"
            failed += [FailedRun(name, run.seed, reason) for run in by_setting[name]]
            del tables[name]
    if not tables:
        return SweepResults(choose_by, [], failed, None, None, "", {}, 0, 0)
    patients = tables[reference][0][1].patients
    bootstrap = PatientBootstrap(patients, seed=seed)
    scores = {name: _spreads(parts, bootstrap) for name, parts in tables.items()}
    settings = [_setting(name, by_setting[name], scores, reference, bootstrap) for name in tables]
    ranked = sorted(
        (one for one in settings if one.scores[choose_by].mean.value is not None),
        key=lambda one: _goodness(choose_by, one.scores[choose_by].mean.value),
        reverse=True,
    )
    chosen, second = [*ranked, None, None][:2]
    return SweepResults(
        choose_by=choose_by,
        settings=settings,
        failed=failed,
        chosen=chosen,
        lead=_lead(chosen, second, choose_by, bootstrap),
        second=second.name if second else "",
        test=_test_scores(chosen, seed=seed) if chosen else {},
        num_images=len(patients),
        num_patients=len(np.unique(patients)),
    )


def _goodness(score: str, value: float | None) -> float:
    assert value is not None  # noqa: S101 - the caller has left such settings out
    return -value if score == L1 else value


Part = tuple[pd.DataFrame, Predictions]


def _read_validation(runs: Sequence[SweptRun]) -> list[Part]:
    return [read_predictions_of(run.report, VAL_PREDICTIONS_FILE) for run in runs]


def _same_images(reference: Sequence[Part], parts: Sequence[Part]) -> bool:
    """Tell whether all runs were validated on the same images, patients and labels."""
    first = _images(reference[0][0])
    return all(
        list(first.columns) == list(other.columns)
        and len(first) == len(other)
        and bool(equal_rows(first, other).all())
        for other in (_images(table) for table, _ in parts)
    )


def _images(table: pd.DataFrame) -> pd.DataFrame:
    labels = sorted(name for name in table.columns if name.startswith(LABEL_PREFIX))
    return table[["image", "patient_id", *labels]]


def _spreads(parts: Sequence[Part], bootstrap: PatientBootstrap) -> dict[str, Spread]:
    scores = [_scores(table, predictions, bootstrap) for table, predictions in parts]
    return {name: Spread.of([one[name] for one in scores], bootstrap) for name in SCORES}


def _scores(
    table: pd.DataFrame, predictions: Predictions, bootstrap: PatientBootstrap
) -> dict[str, Estimate]:
    columns = range(len(predictions.pathologies))
    no_limits = np.full(len(columns), np.nan)
    resampled = resample_metrics(predictions, no_limits, bootstrap) if columns else {}
    found = {}
    for name, score in RANKED.items():
        classes = [score(*predictions.of_class(column)[:2]) for column in columns]
        empty = Estimate.undefined("nothing is classified")
        found[f"macro_{name}"] = bootstrap.macro(classes, resampled[name]) if classes else empty
    l1 = table["l1"].to_numpy(dtype=np.float64)
    found[L1] = bootstrap.mean(l1, np.ones(len(l1), dtype=bool), "no validation image")
    return found


def _setting(
    name: str,
    runs: Sequence[SweptRun],
    scores: Mapping[str, dict[str, Spread]],
    reference: str,
    bootstrap: PatientBootstrap,
) -> Setting:
    changes, wins = {}, {}
    if name != reference:
        for score, own in scores[name].items():
            other = scores[reference][score]
            changes[score] = bootstrap.difference(own.mean, other.mean)
            pairs = zip(own.by_seed or (), other.by_seed or (), strict=False)
            wins[score] = sum(_goodness(score, a) > _goodness(score, b) for a, b in pairs)
    return Setting(name, tuple(runs), scores[name], changes, wins)


def _lead(
    chosen: Setting | None, second: Setting | None, score: str, bootstrap: PatientBootstrap
) -> Estimate | None:
    if chosen is None or second is None:
        return None
    return bootstrap.difference(chosen.scores[score].mean, second.scores[score].mean)


def _test_scores(chosen: Setting, *, seed: int) -> dict[str, Spread]:
    """Return macro scores and reconstruction error of the chosen setting on test."""
    runs = [read_finished_run(run.report) for run in chosen.runs]
    bootstrap = PatientBootstrap(runs[0].predictions.patients, seed=seed)
    found = [_of_test(run, bootstrap) for run in runs]
    names = (*(f"macro_{name}" for name in HEADLINE_METRICS), L1)
    return {name: Spread.of([one[name] for one in found], bootstrap) for name in names}


def _of_test(run: FinishedRun, bootstrap: PatientBootstrap) -> dict[str, Estimate]:
    l1 = run.table["l1"].to_numpy(dtype=np.float64)
    error = bootstrap.mean(l1, np.ones(len(l1), dtype=bool), "no test image")
    if not run.predictions.pathologies:
        none = Estimate.undefined("nothing is classified")
        return {f"macro_{name}": none for name in HEADLINE_METRICS} | {L1: error}
    macros, _ = resampled_scores(run, bootstrap, reported_scores(run))
    return {f"macro_{name}": one for name, one in macros.items()} | {L1: error}


def as_json(results: SweepResults) -> dict[str, Any]:
    """Return the numbers for other programs; a score that is undefined is null."""
    return {
        "choose_by": results.choose_by,
        "chosen": results.chosen.name if results.chosen else None,
        "validation": {
            one.name: {
                "seeds": [run.seed for run in one.runs],
                "scores": {name: _spread(found) for name, found in one.scores.items()},
                "less_reference": {name: _numbers(found) for name, found in one.changes.items()},
            }
            for one in results.settings
        },
        "lead_over_second": _numbers(results.lead) if results.lead else None,
        "second": results.second or None,
        "test_of_chosen": {name: _spread(found) for name, found in results.test.items()},
        "runs_of_chosen": [
            {"seed": run.seed, "report": run.report, "bundle": run.bundle}
            for run in (results.chosen.runs if results.chosen else ())
        ],
        "failed": [
            {"setting": one.setting, "seed": one.seed, "reason": one.reason}
            for one in results.failed
        ],
        "num_validation_images": results.num_images,
        "num_validation_patients": results.num_patients,
    }


def _spread(found: Spread) -> dict[str, Any]:
    values = list(found.by_seed) if found.by_seed is not None else None
    return {"values": values, "deviation": found.deviation, **_numbers(found.mean)}


def _numbers(found: Estimate) -> dict[str, Any]:
    interval = list(found.interval) if found.interval else None
    return {"mean": found.value, "interval": interval, "reason": found.reason}
