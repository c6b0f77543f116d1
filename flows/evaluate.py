"""Judge a bundle at another site: `python flows/evaluate.py --help` shows every setting."""

from __future__ import annotations

from flows import terminal

if __name__ == "__main__":
    terminal.before_imports()

from prefect import flow

from cxrmodel.config import RuntimeConfig
from cxrmodel.inference.use_config import EvaluateConfig
from cxrmodel.storage.store import Store
from flows.flags import run_command
from tasks.engine.progress import show_library_logs
from tasks.evaluate import judge_site, plan_scores
from tasks.index import index_images
from tasks.score import score_one_shard
from tasks.source import find_source


@flow(name="cxrmodel-evaluate", flow_run_name="evaluate-{config.bundle}", persist_result=False)
def evaluate_bundle(config: EvaluateConfig) -> dict[str, str]:
    """Judge a bundle on labelled images of another site, beside its own test images.

    Several runs at once share the scoring, and a run that was killed goes on at the shard.

    Args:
        config: Which bundle, which images, and what to say of them.

    Returns:
        The headline figures and the place of the page, in words, by what it is.
    """
    show_library_logs()
    store = Store(config.store.root, config.store.scratch)
    source = find_source(config.data, store, RuntimeConfig())
    index = index_images(config.data, source, store)
    plan = plan_scores(config, source, index, store)
    for shard in plan.scoring.shards:
        score_one_shard(plan.scoring, shard, config.device)
    return judge_site(config, plan)


if __name__ == "__main__":
    run_command(evaluate_bundle, EvaluateConfig, "python flows/evaluate.py")
