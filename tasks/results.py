"""The results of a run in Prefect's page: headline, tables and small figures; never cached."""

from __future__ import annotations

import logging

import httpx
from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.exceptions import PrefectException

from cxrmodel.report.brief import figure_texts, finding_rows, headline_text, ledger_rows
from cxrmodel.storage.layout import REPORT_FILE
from cxrmodel.storage.store import Artifact, Store
from tasks.engine.stage import TRANSIENT

logger = logging.getLogger(__name__)


@task(name="results", task_run_name="results", persist_result=False)
def show_results(
    report: Artifact, bundle: Artifact, excluded: list[Artifact], store: Store
) -> None:
    """Show headline metrics, metrics per finding, the ledger and the figures in Prefect's page.

    The run is finished: a server or a store that is out of reach now costs the page, not the run.
    """
    uri = store.uri(report, REPORT_FILE)
    try:
        folder = store.directory(report)
        create_markdown_artifact(
            headline_text(report.summary, uri, store.uri(bundle)),
            key="headline",
            description="Headline metrics, and where report and bundle are",
        )
        create_table_artifact(
            finding_rows(folder), key="per-class", description="Test metrics per finding"
        )
        create_table_artifact(
            ledger_rows([store.directory(artifact) for artifact in excluded]),
            key="ledger",
            description="Images left out, by reason",
        )
        for name, (text, meaning) in figure_texts(folder).items():
            key = f"figure-{name.replace('_', '-')}"
            create_markdown_artifact(text, key=key, description=meaning)
    except (httpx.HTTPError, PrefectException, *TRANSIENT) as error:
        logger.warning(
            "The results are not all in Prefect's page: %s: %s. They are in %s",
            type(error).__name__,
            error,
            uri,
        )
