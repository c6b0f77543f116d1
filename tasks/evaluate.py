"""Evaluation at another site: plan, judge, write; never cached, as the scores are kept."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import task
from prefect.artifacts import create_table_artifact

from cxrmodel.data.source import Source
from cxrmodel.inference.site import SitePlan, evaluate_site, place_of_result, plan_site
from cxrmodel.inference.use_config import EvaluateConfig
from cxrmodel.report.site import write_site_report
from cxrmodel.storage.aliases import find_bundle
from cxrmodel.storage.layout import METRICS_FILE, REPORT_FILE
from cxrmodel.storage.store import Artifact, Store
from cxrmodel.storage.whole_folder import publish_folder
from cxrmodel.threads import use_threads
from tasks.engine.provenance import package_versions
from tasks.engine.stage import RETRIES


@task(name="plan-site", task_run_name="plan-site", persist_result=False, **RETRIES)
def plan_scores(config: EvaluateConfig, source: Source, index: Artifact, store: Store) -> SitePlan:
    """Check labels and patients, and find the images that the bundle has not scored."""
    bundle = find_bundle(config.bundle, store.root)
    return plan_site(config, bundle, source.root, store.directory(index), index.fingerprint)


@task(name="judge-site", task_run_name="judge-site", persist_result=False, **RETRIES)
def judge_site(config: EvaluateConfig, plan: SitePlan) -> dict[str, str]:
    """Compare site and home, write the page, and show the headline figures in Prefect's page."""
    use_threads()
    found, table = evaluate_site(config, plan)
    place = place_of_result(config, plan)
    with TemporaryDirectory() as folder:
        figures = write_site_report(found, table, Path(folder), packages=package_versions())
        publish_folder(Path(folder), place, METRICS_FILE)
    summary = {**figures, "report": f"{place}/{REPORT_FILE}"}
    create_table_artifact(
        [{"what": name, "value": text} for name, text in summary.items()],
        key="site",
        description="The model at another site, beside home",
    )
    return summary
