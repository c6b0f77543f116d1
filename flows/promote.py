"""Give a bundle the alias `champion`: `python flows/promote.py --help` shows every setting."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from prefect import flow
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_UI_URL

from cxrmodel.errors import NothingToJudgeError
from cxrmodel.inference.promotion import contest_text
from cxrmodel.inference.use_config import PromoteConfig
from cxrmodel.tracking import check_tracking
from flows.flags import run_command
from tasks.engine.progress import show_library_logs
from tasks.promote import compare_with_champion, give_alias, roll_back_alias
from tasks.tracking import track_alias

APPROVAL_S = 7 * 24 * 3600
POLL_S = 5


class Approval(RunInput):
    """What a person says in Prefect's page."""

    approve: bool
    who: str
    why: str = ""


@flow(name="cxrmodel-promote", flow_run_name="promote-{config.alias}", persist_result=False)
def promote_bundle(config: PromoteConfig, must_judge: bool = True) -> dict[str, str]:
    """Give an alias to a bundle that is better on held-out images, or give it back.

    A challenger that is not better is refused, which is no failure of the run.

    Args:
        config: The bundles, the test images, and what the challenger has to show.
        must_judge: Fail where no test image is left to compare by; else that is a refusal too.

    Returns:
        What was done, in words, by what it is.
    """
    show_library_logs()
    check_tracking(config.tracking)
    done = _roll_back_or_contest(config, must_judge)
    if config.tracking.mlflow_uri and "refused" not in done:
        track_alias(config)
    return done


def _roll_back_or_contest(config: PromoteConfig, must_judge: bool) -> dict[str, str]:
    if config.rollback:
        return roll_back_alias(config)
    if config.require_approval and not PREFECT_UI_URL.value():
        raise ValueError(
            "require_approval waits for a person in Prefect's page, and this run has a server of "
            "its own, without one. Set PREFECT_API_URL to a server with a page."
        )
    contest = compare_with_champion(config)
    if contest.obstacle and must_judge:
        raise NothingToJudgeError(contest.obstacle)
    if not contest.is_won:
        return {"refused": contest.challenger, "why": " ".join(contest.reasons)}
    if not config.require_approval:
        return give_alias(contest, config, "", "")
    form = Approval.with_initial_data(description=contest_text(contest), approve=False)
    answer = pause_flow_run(wait_for_input=form, timeout=APPROVAL_S, poll_interval=POLL_S)
    if not answer.approve:
        return {"refused": contest.challenger, "why": f"{answer.who} declined: {answer.why}"}
    return give_alias(contest, config, answer.who, answer.why)


if __name__ == "__main__":
    run_command(promote_bundle, PromoteConfig, "python flows/promote.py")
