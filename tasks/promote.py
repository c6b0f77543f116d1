"""Promotion: compare a challenger with the champion, and change the alias; never cached."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact

from cxrmodel.inference.promotion import (
    Contest,
    contest_text,
    hold_contest,
    roll_back,
    settle_contest,
)
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.threads import use_threads
from tasks.engine.progress import progress_reporter
from tasks.engine.stage import RETRIES


@task(name="contest", task_run_name="contest", persist_result=False, **RETRIES)
def compare_with_champion(config: PromoteConfig) -> Contest:
    """Judge the challenger on held-out images, and show in Prefect's page what was found."""
    use_threads()
    with progress_reporter("contest") as report:
        contest = hold_contest(config, report=report)
    create_markdown_artifact(
        contest_text(contest), key="contest", description="Challenger against champion"
    )
    return contest


@task(name="give-alias", task_run_name="give-alias", persist_result=False)
def give_alias(contest: Contest, config: PromoteConfig, who: str, why: str) -> dict[str, str]:
    """Give the alias to the challenger, and say so."""
    change = settle_contest(contest, config, who, why)
    return {"promoted": f"{contest.challenger} has the alias {config.alias}", "why": change.why}


@task(name="roll-back", task_run_name="roll-back", persist_result=False)
def roll_back_alias(config: PromoteConfig) -> dict[str, str]:
    """Give the alias back to the bundle that had it before, and say so."""
    change = roll_back(config)
    return {"rolled back": f"{change.bundle} has the alias {config.alias} again"}
