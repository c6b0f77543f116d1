"""The end of a sweep: compare its runs and write its page; never cached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from prefect import task
from prefect.artifacts import create_table_artifact

from cxrmodel.config import SWEEPS_FOLDER
from cxrmodel.report.comparison.sweep import FailedRun, SweptRun, compare_settings
from cxrmodel.report.comparison.sweep_page import choice_text, sweep_files
from cxrmodel.report.prose import plural
from cxrmodel.storage.layout import SWEEP_FILE
from cxrmodel.storage.small_files import open_small_files
from cxrmodel.sweep_config import COMPARED, SweepConfig, changed
from cxrmodel.threads import use_threads
from tasks.engine.stage import RETRIES


@task(name="sweep-page", task_run_name="sweep-page", persist_result=False, **RETRIES)
def write_sweep_page(
    config: SweepConfig, finished: Sequence[SweptRun], failed: Sequence[FailedRun]
) -> dict[str, str]:
    """Choose a setting, write the page to the store, and show in Prefect's page what was chosen."""
    use_threads(config.base.runtime.num_threads)
    results = compare_settings(finished, failed, config.choose_by)
    place = f"{config.base.store.root.rstrip('/')}/{SWEEPS_FOLDER}/{config.name}"
    configs = {
        name: changed(config.base, change).model_dump(include=set(COMPARED))
        for name, change in config.settings.items()
    }
    files = open_small_files(place)
    for name, content in sweep_files(config.name, results, configs).items():
        files.write(name, content)
    done = {"chosen": choice_text(results), "page": f"{place}/{SWEEP_FILE}"}
    if results.failed:
        counts = Counter(one.setting for one in results.failed)
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
        done["failed"] = f"{plural(len(results.failed), 'training')} failed: {listed}"
    create_table_artifact(
        [{"what": name, "value": text} for name, text in done.items()],
        key="sweep",
        description="The chosen setting, and where the page is",
    )
    return done
