"""Score what is new in a folder or bucket: `python flows/score.py --help` shows every setting."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from collections import Counter

from prefect import flow

from cxrmodel.inference.use_config import ScoreConfig
from cxrmodel.storage.store import Store
from flows.flags import run_command
from tasks.engine.progress import show_library_logs
from tasks.score import find_new_images, remove_outdated_rows, score_one_shard, show_scored


@flow(name="cxrmodel-score", flow_run_name="score-{config.bundle}", persist_result=False)
def score_images(config: ScoreConfig) -> dict[str, str]:
    """Score the images of a folder or bucket that are new, or have changed, since the last time.

    Several runs at once share the work: each leaves out the shards that another has finished.

    Args:
        config: Which images, which bundle, and where the scores go.

    Returns:
        What was done, in words, by what it is.
    """
    show_library_logs()
    store = Store(config.store.root, config.store.scratch)
    plan = find_new_images(config.bundle, config.data.root, config.place, store)
    statuses: Counter[str] = Counter()
    for shard in plan.shards:
        statuses.update(score_one_shard(plan, shard, config.device))
    if plan.shards or plan.has_outdated:
        remove_outdated_rows(plan)
    return show_scored(plan, dict(statuses))


if __name__ == "__main__":
    run_command(score_images, ScoreConfig, "python flows/score.py")
