"""Scoring with a bundle: find what is new, score it shard by shard; never cached."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact

from cxrmodel.inference.scoring import (
    ScoringPlan,
    Shard,
    plan_scoring,
    remove_outdated,
    score_shard,
    summarize,
)
from cxrmodel.storage.aliases import find_bundle
from cxrmodel.storage.store import Store
from cxrmodel.threads import use_threads
from tasks.engine.progress import progress_reporter
from tasks.engine.stage import RETRIES


@task(name="find-new-images", task_run_name="find-new-images", persist_result=False, **RETRIES)
def find_new_images(bundle: str, root: str, out: str, store: Store) -> ScoringPlan:
    """List the images, and find those that the bundle, or who has its alias, has not scored."""
    return plan_scoring(find_bundle(bundle, store.root), root, out)


@task(name="score-shard", task_run_name="score-{shard.key}", persist_result=False, **RETRIES)
def score_one_shard(plan: ScoringPlan, shard: Shard, device: str) -> dict[str, int]:
    """Score the images of a shard, unless another run has; count them by status."""
    use_threads()
    with progress_reporter("score") as report:
        return score_shard(plan, shard, device=device, report=report)


@task(name="remove-outdated", task_run_name="remove-outdated", persist_result=False, **RETRIES)
def remove_outdated_rows(plan: ScoringPlan) -> int:
    """Leave one row per image in the output."""
    return remove_outdated(plan)


@task(name="show-scored", task_run_name="show-scored", persist_result=False)
def show_scored(plan: ScoringPlan, statuses: dict[str, int]) -> dict[str, str]:
    """Show in Prefect's page what was done, and return it."""
    summary = summarize(plan, statuses)
    create_table_artifact(
        [{"what": name, "value": text} for name, text in summary.items()],
        key="scored",
        description="Images that were scored, and where the scores are",
    )
    return summary
